{{ config(materialized='replace_range', meta={'day_column': 'event_date', 'neighbours': 0}) }}

{% set in_chunk -%}
    timestamp_ms >= {{ day_to_ms(chunk_first_day()) }} and timestamp_ms < {{ day_to_ms(chunk_last_day(plus_days=1)) }}
{%- endset %}

with browsing as (

    select * from {{ ref('stg_browsing') }} where {{ in_chunk }}

),

search as (

    select * from {{ ref('stg_search') }} where {{ in_chunk }}

),

clicks as (

    select
        search.session_id,
        search.timestamp_ms,
        {{ exploded('sku') }}
    from search {{ explode('search.clicked_skus', 'sku') }}

),

events as (

    select session_id, timestamp_ms, action, sku, url from browsing
    union all
    select session_id, timestamp_ms, 'search', '', '' from search
    union all
    select session_id, timestamp_ms, 'click', sku, '' from clicks

),

deduplicated as (

    select
        session_id,
        timestamp_ms,
        action,
        sku,
        url,
        count(*) as copies
    from events
    group by session_id, timestamp_ms, action, sku, url

),

doubled_views as (

    select distinct session_id, timestamp_ms, url, 'view' as action
    from deduplicated
    where action in ('detail', 'add', 'remove', 'purchase')

),

final as (

    select
        deduplicated.session_id,
        cast({{ ms_to_timestamp('deduplicated.timestamp_ms') }} as date) as event_date,
        deduplicated.timestamp_ms,
        {{ event_order('deduplicated.action') }} as event_order,
        deduplicated.action,
        deduplicated.sku,
        deduplicated.url,
        cast(deduplicated.copies as int) as copies
    from deduplicated
    left join doubled_views
        on deduplicated.session_id = doubled_views.session_id
        and deduplicated.timestamp_ms = doubled_views.timestamp_ms
        and deduplicated.url = doubled_views.url
        and deduplicated.action = doubled_views.action
    where doubled_views.session_id is null

)

select * from final
