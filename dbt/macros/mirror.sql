{#-
  Incremental models that are, after every run, exactly what their SELECT returns.

  `mirror(present, key, versions)` stands at a model's end. `present` is a whole SELECT. The first
  run, and --full-refresh, take all of it; later runs take only

  * rows whose key the table does not have,
  * rows that have another version than the table's: one of the columns `versions` differs,
  * keys of the table that `present` has no more: such a row has NULL in `_loaded_at`.

  Why a comparison and no "newer than the newest": `_loaded_at` is when the loader *wrote* a row.
  A load of a whole table writes for minutes before it commits, so rows appear that are older than
  what a run has seen; a clock may be set back; and a deleted row leaves nothing that is newer. But
  the loader sets `_loaded_at` whenever it writes a row, so two versions of one row never share
  it. To be equal is enough, and no order is needed. A column that a row takes from elsewhere (a
  joined table's `_loaded_at`, a key that is looked up) belongs into `versions` as well.

  All of it is one statement, so one snapshot of `raw`: the model never holds half of a change.
-#}
{% macro mirror(present, key, versions=['_loaded_at']) %}
{%- if not is_incremental() -%}
{{ present }}
{%- else -%}
with present as (
{{ present }}
)

select
    coalesce(present.{{ key }}, known.{{ key }}) as {{ key }}
    {%- for column in get_columns_in_query(present) if column != key %},
    present.{{ column }}
    {%- endfor %}
from present
full join {{ this }} as known on known.{{ key }} = present.{{ key }}
where present.{{ key }} is null
    or known.{{ key }} is null
    {%- for column in versions %}
    or present.{{ column }} is distinct from known.{{ column }}
    {%- endfor %}
{%- endif -%}
{% endmacro %}


{#- dbt's hook for incremental_strategy: mirror. Delete and insert are one transaction. -#}
{% macro get_incremental_mirror_sql(arg_dict) %}
    {%- set key = arg_dict['unique_key'] -%}
    {%- set columns = get_quoted_csv(arg_dict['dest_columns'] | map(attribute='name')) -%}
    delete from {{ arg_dict['target_relation'] }} as known
    using {{ arg_dict['temp_relation'] }} as news
    where known.{{ key }} = news.{{ key }};

    insert into {{ arg_dict['target_relation'] }} ({{ columns }})
    select {{ columns }} from {{ arg_dict['temp_relation'] }}
    where _loaded_at is not null
{% endmacro %}
