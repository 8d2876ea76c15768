{#- Everything that DuckDB and Snowflake spell differently. Models call only these; nothing else dispatches. -#}

{%- macro ms_to_timestamp(milliseconds) -%}{{ adapter.dispatch('ms_to_timestamp')(milliseconds) }}{%- endmacro -%}

{%- macro duckdb__ms_to_timestamp(milliseconds) -%}make_timestamp({{ milliseconds }} * 1000){%- endmacro -%}

{%- macro snowflake__ms_to_timestamp(milliseconds) -%}to_timestamp_ntz({{ milliseconds }}, 3){%- endmacro -%}


{%- macro day_to_ms(day) -%}{{ adapter.dispatch('day_to_ms')(day) }}{%- endmacro -%}

{%- macro duckdb__day_to_ms(day) -%}epoch_ms(cast({{ day }} as timestamp)){%- endmacro -%}

{%- macro snowflake__day_to_ms(day) -%}(datediff(day, date '1970-01-01', {{ day }}) * 86400000){%- endmacro -%}


{#- The group's events in their total order, as an array of `value`: 'action', 'sku' or 'timestamp_ms'. DuckDB builds and sorts one list
    for all three, six times faster than ordered aggregates; time and tiebreak are one number in it, which the action is read off. -#}
{%- macro events_in_order(value) -%}{{ adapter.dispatch('events_in_order')(value) }}{%- endmacro -%}

{%- macro duckdb__events_in_order(value) -%}
    {%- set values = {
        'action': "['" ~ actions_in_order() | join("', '") ~ "'][x.moment & 7]",
        'sku': 'x.sku',
        'timestamp_ms': 'x.moment >> 3',
    } -%}
    list_transform(list_sort(list({'moment': timestamp_ms * 8 + event_order, 'sku': sku})), lambda x: {{ values[value] }})
{%- endmacro -%}

{%- macro snowflake__events_in_order(value) -%}
    {#- array_agg leaves nulls out: no column that becomes an array may hold one (distinct_events_are_complete) -#}
    array_agg({{ value }}) within group (order by timestamp_ms, event_order, sku)
{%- endmacro -%}


{%- macro array_length(array) -%}{{ adapter.dispatch('array_length')(array) }}{%- endmacro -%}

{%- macro duckdb__array_length(array) -%}len({{ array }}){%- endmacro -%}

{%- macro snowflake__array_length(array) -%}array_size({{ array }}){%- endmacro -%}


{#- 0-based index of the first element equal to `value`; null where there is none. -#}
{%- macro array_first_index(array, value) -%}{{ adapter.dispatch('array_first_index')(array, value) }}{%- endmacro -%}

{%- macro duckdb__array_first_index(array, value) -%}list_position({{ array }}, {{ value }}) - 1{%- endmacro -%}

{%- macro snowflake__array_first_index(array, value) -%}array_position(to_variant({{ value }}), {{ array }}){%- endmacro -%}


{#- Whether `value` occurs at a 0-based index greater than `index`. -#}
{%- macro array_contains_after(array, value, index) -%}{{ adapter.dispatch('array_contains_after')(array, value, index) }}{%- endmacro -%}

{%- macro duckdb__array_contains_after(array, value, index) -%}
    list_contains({{ array }}[{{ index }} + 2:], {{ value }})
{%- endmacro -%}

{%- macro snowflake__array_contains_after(array, value, index) -%}
    array_contains(to_variant({{ value }}), array_slice({{ array }}, {{ index }} + 1, array_size({{ array }})))
{%- endmacro -%}


{#- A lateral join that gives one row per element of an array column: `from t {{ explode('t.skus', 'sku') }}`, whose element is selected
    by `{{ exploded('sku') }}`. Null and empty give none. -#}
{%- macro explode(array, element) -%}{{ adapter.dispatch('explode')(array, element) }}{%- endmacro -%}

{%- macro duckdb__explode(array, element) -%}cross join unnest({{ array }}) as exploded({{ element }}){%- endmacro -%}

{%- macro snowflake__explode(array, element) -%}, lateral flatten(input => {{ array }}) as exploded{%- endmacro -%}


{%- macro exploded(element) -%}{{ adapter.dispatch('exploded')(element) }}{%- endmacro -%}

{%- macro duckdb__exploded(element) -%}exploded.{{ element }}{%- endmacro -%}

{%- macro snowflake__exploded(element) -%}exploded.value::varchar as {{ element }}{%- endmacro -%}


{#- Replace days: delete the range, insert the query's rows, atomically. -#}
{%- macro replace_days(relation, columns, condition, query) -%}
    {{ return(adapter.dispatch('replace_days')(relation, columns, condition, query)) }}
{%- endmacro -%}

{%- macro duckdb__replace_days(relation, columns, condition, query) -%}
    {#- dbt has begun a transaction; the caller commits. -#}
    delete from {{ relation }} where {{ condition }};
    insert into {{ relation }} ({{ columns }}) (select {{ columns }} from ({{ query }}));
{%- endmacro -%}

{%- macro snowflake__replace_days(relation, columns, condition, query) -%}
    {%- set dml -%}
        delete from {{ relation }} where {{ condition }};
        insert into {{ relation }} ({{ columns }}) (select {{ columns }} from ({{ query }}))
    {%- endset -%}
    {{ return(snowflake_dml_explicit_transaction(dml)) }}
{%- endmacro -%}


{#- An empty table with the query's columns, for the days to be put in. -#}
{%- macro create_empty(relation, query, day_column) -%}
    {{ return(adapter.dispatch('create_empty')(relation, query, day_column)) }}
{%- endmacro -%}

{%- macro duckdb__create_empty(relation, query, day_column) -%}
    create table {{ relation }} as (select * from ({{ query }}) where 1 = 0);
{%- endmacro -%}

{%- macro snowflake__create_empty(relation, query, day_column) -%}
    {#- transient: what can be built again from landed files needs no fail-safe copies -#}
    create or replace transient table {{ relation }} cluster by ({{ day_column }}) as (select * from ({{ query }}) where 1 = 0)
{%- endmacro -%}


{#- Put a finished table in the place of another one, or of nothing. -#}
{%- macro swap_in(aside, target, existing) -%}
    {{ return(adapter.dispatch('swap_in')(aside, target, existing)) }}
{%- endmacro -%}

{%- macro duckdb__swap_in(aside, target, existing) -%}
    {% if existing %}drop {{ existing.type }} if exists {{ existing }};{% endif %}
    alter table {{ aside }} rename to {{ target.identifier }};
{%- endmacro -%}

{%- macro snowflake__swap_in(aside, target, existing) -%}
    {%- if existing and existing.is_table -%}
        alter table {{ target }} swap with {{ aside }};
        drop table {{ aside }}
    {%- else -%}
        {% if existing %}drop {{ existing.type }} if exists {{ existing }};{% endif %}
        alter table {{ aside }} rename to {{ target }}
    {%- endif -%}
{%- endmacro -%}
