{#- Every number of the column is in the seed: fails for those that OpenDental added since. -#}
{% test known_code(model, column_name, code_set) %}
select distinct held.{{ column_name }}
from {{ model }} as held
left join {{ ref('opendental_codes') }} as known
    on known.code_set = '{{ code_set }}' and known.code = held.{{ column_name }}
where held.{{ column_name }} is not null and known.code is null
{% endtest %}
