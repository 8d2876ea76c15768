{#- Everything that DuckDB and Snowflake spell differently. Models call only these; nothing else dispatches. -#}

{%- macro ms_to_timestamp(milliseconds) -%}{{ adapter.dispatch('ms_to_timestamp')(milliseconds) }}{%- endmacro -%}

{%- macro duckdb__ms_to_timestamp(milliseconds) -%}make_timestamp({{ milliseconds }} * 1000){%- endmacro -%}


{%- macro day_to_ms(day) -%}{{ adapter.dispatch('day_to_ms')(day) }}{%- endmacro -%}

{%- macro duckdb__day_to_ms(day) -%}epoch_ms(cast({{ day }} as timestamp)){%- endmacro -%}


{#- An array of `value` over the group, ordered by `order_by`. `carry` names every column that any array of the same query uses:
    DuckDB then builds and sorts one list of structs for all of them, which is six times faster than ordered aggregates. -#}
{%- macro ordered_array(value, order_by, carry) -%}{{ adapter.dispatch('ordered_array')(value, order_by, carry) }}{%- endmacro -%}

{%- macro duckdb__ordered_array(value, order_by, carry) -%}
    {%- set columns = order_by + carry | reject('in', order_by) | list -%}
    {%- set fields = [] -%}
    {%- for column in columns %}{% do fields.append("'" ~ column ~ "': " ~ column) %}{% endfor -%}
    list_transform(list_sort(list({ {{- fields | join(', ') -}} })), lambda x: x.{{ value }})
{%- endmacro -%}


{%- macro array_length(array) -%}{{ adapter.dispatch('array_length')(array) }}{%- endmacro -%}

{%- macro duckdb__array_length(array) -%}len({{ array }}){%- endmacro -%}


{#- 0-based index of the first element equal to `value`; null where there is none. -#}
{%- macro array_first_index(array, value) -%}{{ adapter.dispatch('array_first_index')(array, value) }}{%- endmacro -%}

{%- macro duckdb__array_first_index(array, value) -%}list_position({{ array }}, {{ value }}) - 1{%- endmacro -%}


{#- Whether `value` occurs at a 0-based index greater than `index`. -#}
{%- macro array_contains_after(array, value, index) -%}{{ adapter.dispatch('array_contains_after')(array, value, index) }}{%- endmacro -%}

{%- macro duckdb__array_contains_after(array, value, index) -%}
    list_contains({{ array }}[{{ index }} + 2:], {{ value }})
{%- endmacro -%}


{#- A lateral join that gives one row per element of an array column: `from t {{ explode('t.skus', 'sku') }}`. Null and empty give none. -#}
{%- macro explode(array, element) -%}{{ adapter.dispatch('explode')(array, element) }}{%- endmacro -%}

{%- macro duckdb__explode(array, element) -%}cross join unnest({{ array }}) as exploded({{ element }}){%- endmacro -%}


{#- Replace days: delete the range, insert the query's rows, atomically. -#}
{%- macro replace_days(relation, columns, condition, query) -%}
    {{ return(adapter.dispatch('replace_days')(relation, columns, condition, query)) }}
{%- endmacro -%}

{%- macro duckdb__replace_days(relation, columns, condition, query) -%}
    {#- dbt has begun a transaction; the caller commits. -#}
    delete from {{ relation }} where {{ condition }};
    insert into {{ relation }} ({{ columns }}) (select {{ columns }} from ({{ query }}));
{%- endmacro -%}
