//! [`Stores`](super::Stores) over statements: the same in both databases but for the statements themselves and for who may read
//! beside a writer.

/// Implement [`Stores`](super::Stores) for a database whose module has `buckets`, `memories` and `spending`, by its ways to
/// read and to write.
macro_rules! stores_by_statements {
    ($db:ty, read: $read:ident, write: $write:ident) => {
        #[async_trait]
        impl Stores for $db {
            async fn bucket_get(&self, place: &Place, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, DbError> {
                let (place, keys): (Place, Arc<[String]>) = (place.clone(), keys.into());
                self.$read("read a bucket", move |c| {
                    let (place, keys) = (place.clone(), keys.clone());
                    Box::pin(async move { buckets::get(c, &place, &keys).await })
                })
                .await
            }

            async fn bucket_keys(&self, place: &Place, after: i64, limit: u32) -> Result<Vec<KeyRow>, DbError> {
                let place = place.clone();
                self.$read("list a bucket", move |c| {
                    let place = place.clone();
                    Box::pin(async move { buckets::keys(c, &place, after, limit).await })
                })
                .await
            }

            async fn bucket_set(
                &self,
                place: &Place,
                pairs: Vec<(String, Vec<u8>)>,
                limits: &StoreLimits,
                writer: Writer,
            ) -> Result<StoreAnswer<()>, DbError> {
                let (place, limits, pairs) = (place.clone(), *limits, Arc::new(pairs));
                self.$write("write into a bucket", move |c| {
                    let (place, pairs) = (place.clone(), pairs.clone());
                    Box::pin(async move { answered(buckets::set(c, &place, &pairs, &limits, writer).await) })
                })
                .await
            }

            async fn bucket_delete(
                &self,
                place: &Place,
                keys: &[String],
                writer: Writer,
            ) -> Result<StoreAnswer<()>, DbError> {
                let (place, keys): (Place, Arc<[String]>) = (place.clone(), keys.into());
                self.$write("delete from a bucket", move |c| {
                    let (place, keys) = (place.clone(), keys.clone());
                    Box::pin(async move { answered(buckets::delete(c, &place, &keys, writer).await) })
                })
                .await
            }

            async fn bucket_increment(
                &self,
                place: &Place,
                key: &str,
                delta: u64,
                limits: &StoreLimits,
                writer: Writer,
            ) -> Result<StoreAnswer<u64>, DbError> {
                let (place, key, limits): (Place, Arc<str>, StoreLimits) = (place.clone(), key.into(), *limits);
                self.$write("count in a bucket", move |c| {
                    let (place, key) = (place.clone(), key.clone());
                    Box::pin(async move { answered(buckets::increment(c, &place, &key, delta, &limits, writer).await) })
                })
                .await
            }

            async fn remember(
                &self,
                place: &Place,
                text: &str,
                metadata: &str,
                limits: &StoreLimits,
                writer: Writer,
            ) -> Result<StoreAnswer<Uuid>, DbError> {
                let (place, limits) = (place.clone(), *limits);
                let (text, metadata): (Arc<str>, Arc<str>) = (text.into(), metadata.into());
                self.$write("remember", move |c| {
                    let (place, text, metadata) = (place.clone(), text.clone(), metadata.clone());
                    Box::pin(
                        async move { answered(memories::remember(c, &place, &text, &metadata, &limits, writer).await) },
                    )
                })
                .await
            }

            async fn recall(&self, place: &Place, query: &str, limit: u32) -> Result<Vec<MemoryRow>, DbError> {
                let (place, query): (Place, Arc<str>) = (place.clone(), query.into());
                self.$read("search a memory", move |c| {
                    let (place, query) = (place.clone(), query.clone());
                    Box::pin(async move { memories::recall(c, &place, &query, limit).await })
                })
                .await
            }

            async fn forget(&self, place: &Place, id: Uuid, writer: Writer) -> Result<StoreAnswer<()>, DbError> {
                let place = place.clone();
                self.$write("forget", move |c| {
                    let place = place.clone();
                    Box::pin(async move { answered(memories::forget(c, &place, id, writer).await) })
                })
                .await
            }

            async fn spend(&self, writer: Writer, plugin: &str, amounts: &[Amount]) -> Result<SpendAnswer, DbError> {
                let (plugin, amounts): (Arc<str>, Arc<[Amount]>) = (plugin.into(), amounts.into());
                self.$write("count what is spent", move |c| {
                    let (plugin, amounts) = (plugin.clone(), amounts.clone());
                    Box::pin(async move { spending::spend(c, writer, &plugin, &amounts).await })
                })
                .await
            }

            async fn correct_spending(
                &self,
                writer: Writer,
                plugin: &str,
                day: Option<NaiveDate>,
                kind: &'static str,
                difference: i64,
            ) -> Result<(), DbError> {
                let plugin: Arc<str> = plugin.into();
                self.$write("put right what was spent", move |c| {
                    let plugin = plugin.clone();
                    Box::pin(async move { spending::correct(c, writer, &plugin, day, kind, difference).await })
                })
                .await
            }
        }
    };
}
