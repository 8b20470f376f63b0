{#- OpenDental's ways to say "none" become NULL; the values stand in the seed of sentinels. -#}

{% macro none_date(value) -%}
    nullif({{ value }}, (select date_value from {{ ref('opendental_sentinels') }} where kind = 'none'))
{%- endmacro %}

{% macro none_datetime(value) -%}
    nullif({{ value }}, (select datetime_value from {{ ref('opendental_sentinels') }} where kind = 'none'))
{%- endmacro %}

{% macro none_time(value) -%}
    nullif({{ value }}, (select time_value from {{ ref('opendental_sentinels') }} where kind = 'none'))
{%- endmacro %}

{#- A moment whose date is always filled in: at midnight nothing has happened yet. -#}
{% macro none_moment(value) -%}
    case when {{ value }}::time <> time '00:00' then {{ none_datetime(value) }} end
{%- endmacro %}

{% macro none_text(value) -%}
    nullif({{ value }}, '')
{%- endmacro %}

{% macro yes(value) -%}
    ({{ value }} <> 0)
{%- endmacro %}


{#- Join the seed of codes as `alias`, and read the meaning from it. -#}
{% macro join_codes(alias, code_set, value) -%}
    left join {{ ref('opendental_codes') }} as {{ alias }}
        on {{ alias }}.code_set = '{{ code_set }}' and {{ alias }}.code = {{ value }}
{%- endmacro %}

{% macro meaning(alias) -%}
    coalesce({{ alias }}.meaning, 'Unknown')
{%- endmacro %}


{#- Whole minutes, rounded. -#}
{% macro minutes_between(begin, end) -%}
    round(extract(epoch from {{ end }} - {{ begin }})::numeric / 60)::bigint
{%- endmacro %}
