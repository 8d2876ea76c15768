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
