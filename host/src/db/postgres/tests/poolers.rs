//! A pooler between the daemon and the database: PgBouncer, as Debian has it.

use super::*;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// PgBouncer in front of the tests' server, until dropped.
struct Pooler {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().map(PathBuf::from).find(|path| path.exists())
}

/// Starts it with its defaults but for this mode.
async fn pooler(mode: &str) -> Pooler {
    let program = program()
        .expect("pgbouncer is installed (apt-get install pgbouncer); cargo xtask test skips this test without it");
    let server = url::Url::parse(&server()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let users = folder.path().join("users");
    let (user, password) = (server.username(), server.password().unwrap_or_default());
    std::fs::write(&users, format!("\"{user}\" \"{password}\"\n")).unwrap();
    let settings = folder.path().join("pgbouncer.ini");
    let (host, to) = (server.host_str().unwrap(), server.port().unwrap_or(5432));
    let text = format!(
        "[databases]\n* = host={host} port={to}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = trust\nauth_file = {}\npool_mode = {mode}\n",
        users.display()
    );
    std::fs::write(&settings, text).unwrap();
    open_to_all(folder.path());
    let mut command = Command::new(program);
    command.arg(&settings).stdout(Stdio::null()).stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        // It refuses to run as root.
        command.arg("--user=nobody");
    }
    let child = command.spawn().expect("pgbouncer starts");
    let pooler = Pooler { child, port, _folder: folder };
    for _ in 0..200 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return pooler;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("pgbouncer does not listen at {port}");
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

impl Pooler {
    fn db(&self, own: &Own, options: &DbOptions) -> PostgresDb {
        let mut url = url::Url::parse(&at(&own.server, &own.name)).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.port)).unwrap();
        PostgresDb::connect(url.as_str(), options).unwrap()
    }
}

#[tokio::test]
async fn a_pooler_in_session_mode_serves_with_its_defaults() {
    let pooler = pooler("session").await;
    let own = Own::new().await;
    let db = pooler.db(&own, &Own::options());
    db.check_service().await.unwrap();
    db.migrate().await.unwrap();
    db.check_schema().await.unwrap();
    db.register_host(&conformance::record(), conformance::LONG).await.unwrap();
    db.submit(&[conformance::new_task(conformance::id(), Options::default())]).await.unwrap();
    db.close().await;
}

#[tokio::test]
async fn a_pooler_in_transaction_or_statement_mode_is_refused_by_name_and_nothing_is_set() {
    for mode in ["transaction", "statement"] {
        let pooler = pooler(mode).await;
        let own = Own::new().await;
        let db = pooler.db(&own, &Own::options());
        let error = db.check_service().await.unwrap_err();
        assert!(matches!(error, DbError::Refused(_)), "{error:?}");
        assert!(error.to_string().contains("pool_mode = session"), "{error}");
        // Another client of the pool has the server's own settings.
        let mut url = url::Url::parse(&at(&own.server, &own.name)).unwrap();
        url.set_port(Some(pooler.port)).unwrap();
        let other = PgConnectOptions::from_str(url.as_str()).unwrap().extra_float_digits(None);
        let mut other = PgConnection::connect_with(&other).await.unwrap();
        for setting in ["statement_timeout", "enable_seqscan", "search_path"] {
            let sql = format!("SELECT source FROM pg_catalog.pg_settings WHERE name = '{setting}'");
            let source: String = raw_sql(AssertSqlSafe(sql)).fetch_one(&mut other).await.unwrap().get(0);
            assert_ne!(source, "session", "{setting} through a pooler in {mode} mode");
        }
        other.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_database_that_the_pooler_does_not_know_and_a_parameter_that_it_rejects_are_refused() {
    let pooler = pooler("session").await;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?options=-c%20work_mem%3D8MB", pooler.port);
    let db = PostgresDb::connect(&url, &Own::options()).unwrap();
    let error = db.check_service().await.unwrap_err();
    assert!(matches!(error, DbError::Refused(_)), "{error:?}");
    assert!(error.to_string().contains("remove options from database.url"), "{error}");
    let url = format!("postgres://postgres@127.0.0.1:{}/no_such_database", pooler.port);
    let error = PostgresDb::connect(&url, &Own::options()).unwrap().check_service().await.unwrap_err();
    assert!(matches!(&error, DbError::Refused(text) if text.contains("no_such_database")), "{error:?}");
}

#[tokio::test]
async fn a_role_with_few_connections_is_refused_with_the_number_that_is_needed() {
    let own = Own::new().await;
    let role = format!("few_{}", own.name);
    let mut admin = PgConnection::connect(&own.server).await.unwrap();
    let sql = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'x' CONNECTION LIMIT 3; GRANT CREATE ON DATABASE {} TO {role}",
        own.name
    );
    raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
    let mut url = url::Url::parse(&at(&own.server, &own.name)).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("x")).unwrap();
    let refused = PostgresDb::connect(url.as_str(), &Own::options()).unwrap().check_service().await;
    let sql = format!("ALTER ROLE {role} CONNECTION LIMIT 14");
    raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
    let enough = PostgresDb::connect(url.as_str(), &Own::options()).unwrap().check_service().await;
    drop(own);
    raw_sql(AssertSqlSafe(format!("DROP OWNED BY {role}; DROP ROLE {role}"))).execute(&mut admin).await.unwrap();
    let error = refused.unwrap_err();
    assert!(matches!(error, DbError::Refused(_)), "{error:?}");
    let text = error.to_string();
    // database.pool is 4 here: 4 and 10.
    assert!(
        text.contains("allows 3 connections") && text.contains("up to 14") && text.contains("ALTER ROLE"),
        "{text}"
    );
    enough.unwrap();
}
