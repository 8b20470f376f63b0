{#-
  Reading `raw` as it is here: a column may be missing (an older OpenDental, a column that is not
  carried for privacy's sake), and a whole table too. What is missing reads as NULL.
-#}

{#- The relation's columns as {name: type}; empty while dbt only parses. -#}
{% macro raw_columns(relation) %}
    {%- set found = {} -%}
    {%- if execute -%}
        {%- for column in adapter.get_columns_in_relation(relation) -%}
            {%- do found.update({column.name: column.dtype}) -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(found) }}
{% endmacro %}


{#- Does `raw` have the table, as far as this account may see? -#}
{% macro in_raw(relation) %}
    {{ return(execute and adapter.get_relation(
        database=relation.database, schema=relation.schema, identifier=relation.identifier
    ) is not none) }}
{% endmacro %}


{#-
  One column, always of type `type`: NULL where the table lacks it, or holds something there that is
  no such value (a hash or a mask in a number's place).
-#}
{% macro raw_column(columns, table, name, type) %}
    {%- set families = {
        'integer': ['smallint', 'integer'],
        'double precision': ['real', 'double precision', 'numeric'],
        'date': ['date'],
        'timestamp': ['timestamp without time zone'],
        'timestamptz': ['timestamp with time zone'],
        'interval': ['interval'],
    } -%}
    {%- if name in columns and (type == 'text' or columns[name] in families[type]) -%}
        {{ table }}."{{ name }}"::{{ type }}
    {%- else -%}
        null::{{ type }}
    {%- endif -%}
{% endmacro %}


{#-
  A key, or a reference to one: a bigint, so that the models' types stay when an old OpenDental's
  narrower keys grow; text where the keys are hashed for privacy's sake. 0 and '' refer to nothing.
-#}
{% macro raw_key(columns, table, name) %}
    {%- if columns.get(name) in ('smallint', 'integer', 'bigint') -%}
        {{ table }}."{{ name }}"::bigint
    {%- else -%}
        {{ table }}."{{ name }}"
    {%- endif -%}
{% endmacro %}

{% macro raw_reference(columns, table, name) %}
    {%- if name not in columns -%}
        null::bigint
    {%- elif columns[name] in ('smallint', 'integer', 'bigint', 'numeric') -%}
        nullif({{ raw_key(columns, table, name) }}, 0)
    {%- else -%}
        nullif({{ table }}."{{ name }}"::text, '')
    {%- endif -%}
{% endmacro %}


{#- Rows that the source still has: a table with deletes = "soft" keeps the others, marked. -#}
{% macro only_live(columns, table) %}
    {%- if '_deleted_at' in columns -%}
        {{ table }}._deleted_at is null
    {%- else -%}
        true
    {%- endif -%}
{% endmacro %}


{#- When the loader wrote the row; never NULL, which `mirror` relies on. -#}
{% macro loaded_at(table) -%}
    coalesce({{ table }}._loaded_at, 'epoch'::timestamptz)
{%- endmacro %}
