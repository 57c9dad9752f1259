//! Facts for an operator, of a real server.

use super::*;
use crate::db::Examiner;

#[tokio::test]
async fn operator_is_told_of_schema_tasks_and_letters() {
    let own = Own::new().await;
    let db = own.with(Own::options());
    conformance::examining::examined(&db, &db).await;
    let age = async |sql: &str| {
        own.raw.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    };
    conformance::examining::late(&db, &db, age).await;
    let connections = db.connections().await.unwrap().expect("a server has limits");
    assert!(connections.used >= connections.used_by_database && connections.used_by_database >= 1, "{connections:?}");
    assert!(connections.of_server > connections.used, "{connections:?}");
    assert_eq!(db.file().await.unwrap(), None);
}

#[tokio::test]
async fn open_transaction_and_invalid_index_are_named() {
    let own = Own::new().await;
    let db = own.with(Own::options());
    db.migrate().await.unwrap();
    assert_eq!(db.holders().await.unwrap(), []);
    let mut open = own.raw.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    raw_sql("SELECT count(*) FROM tasks").execute(&mut *open).await.unwrap();
    let holders = db.holders().await.unwrap();
    assert_eq!(holders.len(), 1, "{holders:?}");
    assert!(holders[0].kind == "session" && holders[0].age_seconds.is_some(), "{holders:?}");
    open.rollback().await.unwrap();
    raw_sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tasks_newest'::regclass")
        .execute(&own.raw)
        .await
        .unwrap();
    assert_eq!(db.invalid_indexes().await.unwrap(), ["tasks_newest"]);
}

#[tokio::test]
async fn user_without_rights_of_an_operator_still_gets_an_answer() {
    let own = Own::new().await;
    own.with(Own::options()).migrate().await.unwrap();
    let role = own.name.clone();
    let grants = format!(
        "CREATE ROLE {role} LOGIN CONNECTION LIMIT 9; GRANT USAGE ON SCHEMA agentry TO {role};
         GRANT SELECT ON ALL TABLES IN SCHEMA agentry TO {role}"
    );
    raw_sql(AssertSqlSafe(grants)).execute(&own.raw).await.unwrap();
    let mut url: url::Url = at(&own.server, &own.name).parse().unwrap();
    url.set_username(&role).unwrap();
    let db = PostgresDb::connect(url.as_str(), &Own::options()).unwrap();
    let connections = db.connections().await.unwrap().unwrap();
    assert_eq!(connections.of_role, Some(9), "{connections:?}");
    assert!(connections.used >= 2, "sessions of others are counted: {connections:?}");
    assert!(db.holders().await.is_ok() && db.tables().await.is_ok() && db.server().await.is_ok());
    db.close().await;
    raw_sql(AssertSqlSafe(format!("DROP OWNED BY {role}; DROP ROLE {role}"))).execute(&own.raw).await.unwrap();
}
