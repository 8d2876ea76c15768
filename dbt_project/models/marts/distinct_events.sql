{{ config(materialized='replace_range', meta={'day_column': 'event_date', 'neighbours': 0}) }}

{% set in_chunk -%}
    timestamp_ms >= {{ day_to_ms(chunk_first_day()) }} and timestamp_ms < {{ day_to_ms(chunk_last_day(plus_days=1)) }}
{%- endset %}

{% set event = ['session_id', 'timestamp_ms', 'action', 'sku', 'url'] -%}

with browsing as (

    {{ once_per_event_id(ref('stg_browsing'), in_chunk, event, order_by=event) }}

),

product_events as (

    -- read once more rather than taken from the step above: a step that two others read is kept in memory, text and all
    select * from ({{ once_per_event_id(ref('stg_browsing'), in_chunk, event, order_by=event) }}) as once
    where action in ('detail', 'add', 'remove', 'purchase')

),

search as (

    {{ once_per_event_id(ref('stg_search'), in_chunk, ['session_id', 'timestamp_ms', 'clicked_skus'], order_by=['timestamp_ms', 'session_id']) }}

),

clicks as (

    select
        search.session_id,
        search.timestamp_ms,
        search.copies,
        {{ exploded('sku') }}
    from search {{ explode('search.clicked_skus', 'sku') }}

),

doubled_views as (

    -- some more than once: what the join finds is left out, however often
    select session_id, timestamp_ms, url, 'view' as action
    from product_events

),

undoubled as (

    select
        browsing.session_id,
        browsing.timestamp_ms,
        browsing.action,
        browsing.sku,
        browsing.url,
        browsing.copies
    from browsing
    left join doubled_views
        on browsing.session_id = doubled_views.session_id
        and browsing.timestamp_ms = doubled_views.timestamp_ms
        and browsing.url = doubled_views.url
        and browsing.action = doubled_views.action
    where doubled_views.session_id is null

),

events as (

    select session_id, timestamp_ms, action, sku, url, copies from undoubled
    union all
    select session_id, timestamp_ms, 'search', '', '', copies from search
    union all
    select session_id, timestamp_ms, 'click', sku, '', copies from clicks

),

deduplicated as (

    select
        session_id,
        timestamp_ms,
        action,
        sku,
        url,
        sum(copies) as copies
    from events
    group by session_id, timestamp_ms, action, sku, url

),

final as (

    select
        session_id,
        cast({{ ms_to_timestamp('timestamp_ms') }} as date) as event_date,
        timestamp_ms,
        {{ event_order('action') }} as event_order,
        action,
        sku,
        url,
        cast(copies as int) as copies
    from deduplicated

)

select * from final
