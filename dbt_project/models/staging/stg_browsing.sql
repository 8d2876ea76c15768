with source as (

    select * from {{ source('raw', 'browsing_train') }}

),

final as (

    select
        session_id_hash as session_id,
        cast({{ ms_to_timestamp('server_timestamp_epoch_ms') }} as date) as event_date,
        server_timestamp_epoch_ms as timestamp_ms,
        case when event_type = 'pageview' then 'view' else product_action end as action,
        coalesce(product_sku_hash, '') as sku,
        coalesce(hashed_url, '') as url,
        event_id,
        request_id
    from source

)

select * from final
