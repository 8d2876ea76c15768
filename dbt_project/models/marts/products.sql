with products as (

    select * from {{ ref('stg_products') }}

),

ranked as (

    select
        *,
        -- the newest file wins, within a file the fullest row, and among equals the order is total
        row_number() over (
            partition by sku
            order by
                file_number desc,
                case when description_vector is null then 1 else 0 end
                + case when image_vector is null then 1 else 0 end
                + case when category is null then 1 else 0 end
                + case when price_bucket is null then 1 else 0 end,
                coalesce(category, ''),
                coalesce(price_bucket, 0),
                cast(description_vector as varchar),
                cast(image_vector as varchar)
        ) as rank
    from products

),

final as (

    select
        sku,
        category,
        price_bucket,
        description_vector,
        image_vector
    from ranked
    where rank = 1

)

select * from final
