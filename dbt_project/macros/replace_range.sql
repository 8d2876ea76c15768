{#- A table by day, of which a run replaces only its own days: chunk by chunk (run_range.sql), each deleted and inserted in one
    transaction, so that memory is bounded and a kill leaves every chunk old or new.

    config.meta: day_column, the table's day; neighbours, how many days on either side of the changed ones are replaced too.
    With no range (vars first_day, last_day), with --full-refresh, or when the columns changed: everything, built aside and swapped in. -#}

{%- materialization replace_range, default -%}
    {%- set meta = config.get('meta', {}) -%}
    {%- set day_column = meta['day_column'] -%}
    {%- set target = this.incorporate(type='table') -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- set days = run_days(meta.get('neighbours', 0)) -%}
    {{ run_hooks(pre_hooks) }}

    {%- set columns = query_columns(put_chunk(sql, '1900-01-02', '1900-01-02')) -%}
    {%- set everything = days is none or existing is none or not existing.is_table or should_full_refresh()
        or columns | sort != adapter.get_columns_in_relation(existing) | map(attribute='name') | map('lower') | list | sort -%}
    {%- if everything -%}
        {%- do build_aside_and_swap(target, existing, sql, columns, day_column) -%}
    {%- else -%}
        {%- do build_chunks(target, sql, columns, day_column, days) -%}
    {%- endif -%}

    {{ run_hooks(post_hooks) }}
    {{ return({'relations': [target]}) }}
{%- endmaterialization -%}


{%- macro query_columns(query) -%}
    {{ return(get_column_schema_from_query(query) | map(attribute='name') | map('lower') | list) }}
{%- endmacro -%}

{%- macro build_chunks(relation, query, columns, day_column, days) -%}
    {%- for first, last in day_chunks(days[0], days[1], chunk_days(days[0], days[1])) -%}
        {%- set condition = day_column ~ " between date '" ~ first ~ "' and date '" ~ last ~ "'" -%}
        {%- call statement('main') -%}
            {{ replace_days(relation, columns | join(', '), condition, put_chunk(query, first, last)) }}
        {%- endcall -%}
        {%- do adapter.commit() -%}
        {%- set done = day_chunks(days[0], last, 1) | length -%}
        {{ log(relation.identifier | replace('__dbt_tmp', '') ~ ': ' ~ first ~ ' to ' ~ last ~ ' (' ~ done ~ ' of ' ~ day_chunks(days[0], days[1], 1) | length ~ ' days)', info=true) }}
    {%- endfor -%}
{%- endmacro -%}

{%- macro build_aside_and_swap(target, existing, query, columns, day_column) -%}
    {%- set aside = make_intermediate_relation(target) -%}
    {%- do drop_relation_if_exists(load_cached_relation(aside)) -%}
    {%- set nothing = put_chunk(query, '1900-01-02', '1900-01-02') -%}
    {%- call statement('main') -%}
        {{ create_empty(aside, nothing, day_column) }}
    {%- endcall -%}
    {%- do adapter.commit() -%}
    {%- set days = landed_days() -%}
    {%- if days -%}{%- do build_chunks(aside, query, columns, day_column, days) -%}{%- endif -%}
    {%- call statement('swap') -%}
        {{ swap_in(aside, target, existing) }}
    {%- endcall -%}
    {%- do adapter.commit() -%}
{%- endmacro -%}

{#- First and last day of all raw rows, one day wider on either side; none when there are no rows. -#}
{%- macro landed_days() -%}
    {%- call statement('landed_days', fetch_result=true) -%}
        select
            cast({{ ms_to_timestamp('min(ms)') }} as date) - 1,
            cast({{ ms_to_timestamp('max(ms)') }} as date) + 1
        from (
            select min(server_timestamp_epoch_ms) as ms from {{ source('raw', 'browsing_train') }}
            union all select max(server_timestamp_epoch_ms) from {{ source('raw', 'browsing_train') }}
            union all select min(server_timestamp_epoch_ms) from {{ source('raw', 'search_train') }}
            union all select max(server_timestamp_epoch_ms) from {{ source('raw', 'search_train') }}
        )
    {%- endcall -%}
    {%- set first, last = load_result('landed_days')['data'][0] -%}
    {{ return([first | string, last | string] if first else none) }}
{%- endmacro -%}
