{#- Which days a run builds. A model writes `where event_date between {{ chunk_first_day() }} and {{ chunk_last_day() }}`; the
    materialization (replace_range.sql) puts each chunk's days in. Run as it is compiled, the same SQL covers everything. -#}

{%- macro chunk_first_day(plus_days=0) -%}
    (coalesce(try_cast('@chunk_first_day' as date), date '1900-01-02') + ({{ plus_days }}))
{%- endmacro -%}

{%- macro chunk_last_day(plus_days=0) -%}
    (coalesce(try_cast('@chunk_last_day' as date), date '2900-01-01') + ({{ plus_days }}))
{%- endmacro -%}

{%- macro put_chunk(sql, first_day, last_day) -%}
    {{ return(sql | replace('@chunk_first_day', first_day) | replace('@chunk_last_day', last_day)) }}
{%- endmacro -%}


{#- The run's days for a relation with so many neighbouring days on either side: [first, last] as ISO text, or none for everything. -#}
{%- macro run_days(neighbours=0) -%}
    {%- set first, last = var('first_day') | string, var('last_day') | string -%}
    {%- if not first and not last -%}{{ return(none) }}{%- endif -%}
    {%- set iso = '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' -%}
    {%- if not modules.re.match(iso, first) or not modules.re.match(iso, last) or last < first -%}
        {{ exceptions.raise_compiler_error(
            "first_day and last_day must both be days (YYYY-MM-DD), the first not after the last; got '" ~ first ~ "' and '" ~ last ~ "'"
        ) }}
    {%- endif -%}
    {{ return([shift_day(first, -neighbours), shift_day(last, neighbours)]) }}
{%- endmacro -%}

{%- macro shift_day(day, days) -%}
    {%- set moved = modules.datetime.datetime.strptime(day, '%Y-%m-%d') + modules.datetime.timedelta(days=days) -%}
    {{ return(moved.strftime('%Y-%m-%d')) }}
{%- endmacro -%}

{#- How many days are computed at a time: var chunk_days, or as many as hold about var chunk_events raw rows. A chunk costs a commit
    and a scan, whatever its size: a small shop's days go together, a large one's few by few. -#}
{%- macro chunk_days(first, last) -%}
    {%- if var('chunk_days') | int > 0 -%}{{ return(var('chunk_days') | int) }}{%- endif -%}
    {%- set in_range -%}
        server_timestamp_epoch_ms >= {{ day_to_ms("date '" ~ first ~ "'") }}
        and server_timestamp_epoch_ms < {{ day_to_ms("date '" ~ shift_day(last, 1) ~ "'") }}
    {%- endset -%}
    {%- call statement('chunk_days', fetch_result=true) -%}
        select
            (select count(*) from {{ source('raw', 'browsing_train') }} where {{ in_range }})
            + (select count(*) from {{ source('raw', 'search_train') }} where {{ in_range }})
    {%- endcall -%}
    {%- set events = load_result('chunk_days')['data'][0][0] | int -%}
    {%- set days = day_chunks(first, last, 1) | length -%}
    {{ return([1, [days, days * (var('chunk_events') | int) // [events, 1] | max] | min] | max) }}
{%- endmacro -%}

{#- Split [first, last] into chunks of at most `size` days: a list of [first, last]. -#}
{%- macro day_chunks(first, last, size) -%}
    {%- set ns = namespace(start=first, chunks=[]) -%}
    {%- set days = (modules.datetime.datetime.strptime(last, '%Y-%m-%d') - modules.datetime.datetime.strptime(first, '%Y-%m-%d')).days + 1 -%}
    {%- for _ in range(0, days, size) -%}
        {%- set end = shift_day(ns.start, size - 1) -%}
        {%- do ns.chunks.append([ns.start, end if end < last else last]) -%}
        {%- set ns.start = shift_day(ns.start, size) -%}
    {%- endfor -%}
    {{ return(ns.chunks) }}
{%- endmacro -%}


{#- Tests see only the run's days: in a test's config, `where: "@run_days(session_date)"` becomes a range of that column. -#}
{%- macro default__get_where_subquery(relation) -%}
    {%- set where = config.get('where') or '' -%}
    {%- set marker = modules.re.match('^@run_days[(]([a-z_]+)[)]$', where) -%}
    {%- if marker -%}
        {%- set days = run_days(1) -%}
        {%- set where = marker.group(1) ~ " between date '" ~ days[0] ~ "' and date '" ~ days[1] ~ "'" if days else '' -%}
    {%- endif -%}
    {%- if where -%}
        {{ return('(select * from ' ~ relation ~ ' where ' ~ where ~ ') dbt_subquery') }}
    {%- endif -%}
    {{ return(relation) }}
{%- endmacro -%}
