//! The defences by name, so that a test can take away one at a time and see that it is missed.
//!
//! In the build that is shipped, [`Defence::stands`] is a constant: nothing can turn a defence off. Only with the feature
//! `weakened`, in the tests' binary, it asks the variable `AGENTRY_WITHOUT` (names separated by commas; a name that is none
//! ends the process, and says which there are).
//!
//! A crate of its own, because they stand in several: in the sandbox, in what goes out of the host, and where the host keeps a
//! plugin to its shares. One list for all, so that a name that is none is told from one of another crate's.

macro_rules! defences {
    ($( $(#[$doc:meta])* $defence:ident = $name:literal, )*) => {
        /// What keeps a guest within its bounds: one line of code, or the few that say the same.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Defence { $( $(#[$doc])* $defence, )* }

        impl Defence {
            /// All of them.
            pub const ALL: &[Defence] = &[$( Defence::$defence, )*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $( Defence::$defence => $name, )* }
            }
        }
    };
}

defences! {
    /// CPU time is compared with `cpu_seconds`.
    Cpu = "cpu",
    /// The wall clock is compared with `timeout_seconds`.
    WallClock = "wall_clock",
    /// A guest that computes yields to others.
    Yield = "yield",
    /// A task that is stopped ends, whatever its guest does.
    Stop = "stop",
    /// Linear memory is summed over all memories.
    Memory = "memory",
    /// What all guests together have is counted.
    Budget = "budget",
    /// Table elements are summed over all tables.
    Tables = "tables",
    /// What one host call may make the host allocate.
    Hostcall = "hostcall",
    /// Handles of the host's making.
    Handles = "handles",
    /// Handles of the guest's own making.
    GuestHandles = "guest_handles",
    /// Bytes that handles keep alive in the host.
    HeldBytes = "held_bytes",
    /// Random bytes of one call.
    Random = "random",
    /// Bytes of the log.
    LogBytes = "log_bytes",
    /// Lines of the log.
    LogLines = "log_lines",
    /// Bytes of one line of the log.
    LogLine = "log_line",
    /// Standard output and standard error are the host's own streams, not the daemon's.
    OwnStreams = "own_streams",
    /// Bytes of the output.
    Output = "output",
    /// The output is JSON of bounded depth.
    OutputJson = "output_json",
    /// Sockets and name look-ups are refused.
    Network = "network",
    /// What is not linked, or not granted, is refused by name.
    Imports = "imports",
    /// A file that is no component is refused before the compiler sees it.
    FileKind = "file_kind",
    /// Bytes of a component's file.
    ComponentSize = "component_size",
    /// Modules and components within a component.
    Parts = "parts",
    /// Memory that a component begins with.
    InitialMemory = "initial_memory",
    /// Compiled code is taken only from files that are ours and whole.
    CompiledCode = "compiled_code",
    /// The compiler is ended after `compile_seconds`.
    CompileTime = "compile_time",
    /// The compiler has at most `compile_memory_mib`.
    CompileMemory = "compile_memory",
    /// A panic of the host while it serves a guest stays with that guest.
    Panics = "panics",
    /// Frames of a trap have names of bounded length.
    FrameNames = "frame_names",

    // What is granted by name.
    /// A model is asked only by who was granted it.
    ModelGrant = "model_grant",
    /// A bucket is opened only by who was granted it.
    BucketGrant = "bucket_grant",
    /// A memory is used only by who was granted it.
    MemoryGrant = "memory_grant",
    /// The operator's settings are read only by key, as granted.
    ConfigGrant = "config_grant",
    /// Of the operator's folders a guest sees those that were granted.
    FolderGrant = "folder_grant",
    /// Folders are read, and never written.
    FolderReadOnly = "folder_read_only",
    /// A request fits a pattern that was granted.
    HttpGrant = "http_grant",
    /// What a plugin wishes is granted as far as the operator allows it.
    Policy = "policy",
    /// A tool is listed for and called by only who was granted it.
    ToolGrant = "tool_grant",

    // How much.
    /// HTTP requests of a run.
    HttpRequests = "http_requests",
    /// HTTP exchanges of a run at once.
    HttpInFlight = "http_in_flight",
    /// Requests to models of a run.
    LlmRequests = "llm_requests",
    /// Tokens of a run.
    LlmTokens = "llm_tokens",
    /// Calls of tools of a run.
    ToolCalls = "tool_calls",
    /// Calls of buckets and memories of a run.
    StoreCalls = "store_calls",
    /// What a task spends over all its attempts.
    TaskBudget = "task_budget",
    /// What a plugin spends in a day.
    DayBudget = "day_budget",
    /// Calls that are recorded of an attempt.
    CallRecords = "call_records",
    /// Bytes of what a call is recorded to have asked for.
    CallTargets = "call_targets",
    /// Refusals that the failure of an attempt lists.
    Refusals = "refusals",

    // Requests over HTTP.
    /// No method that makes a tunnel of a connection, or tells the headers that the host added.
    HttpMethods = "http_methods",
    /// No user name in a URL, which others read as a host.
    Userinfo = "userinfo",
    /// No path that can be read in more than one way, where a path was granted.
    PathSpelling = "path_spelling",
    /// An address that stands in a URL is judged.
    WrittenAddress = "written_address",
    /// The addresses of a name are judged.
    ResolvedAddress = "resolved_address",
    /// A name is looked up once, and connected to where it was judged to lead.
    LookedUpOnce = "looked_up_once",
    /// A response that leads elsewhere is not followed.
    Redirects = "redirects",
    /// Headers that speak of the connection are the host's.
    HttpHeaders = "http_headers",
    /// Bytes of a request's method, URL and headers.
    HttpHead = "http_head",
    /// Bytes of a request's body.
    HttpRequestBody = "http_request_body",
    /// Bytes of a response's body.
    HttpResponseBody = "http_response_body",
    /// Time until there is a connection.
    HttpConnectTime = "http_connect_time",
    /// Time until a response begins.
    HttpFirstByteTime = "http_first_byte_time",
    /// Time between two pieces of a body.
    HttpIdleTime = "http_idle_time",
    /// Time of an exchange as a whole.
    HttpTotalTime = "http_total_time",
    /// A secret is added only to the requests that it is for.
    SecretOrigin = "secret_origin",
    /// A secret in plain text goes only to what the operator opened.
    PlainSecret = "plain_secret",
    /// A secret that a server says back is taken out.
    HttpMask = "http_mask",

    // Language models.
    /// The longest answer that a model may be asked for.
    LlmMaxTokens = "llm_max_tokens",
    /// Bytes of an answer.
    LlmAnswer = "llm_answer",
    /// Values in an answer.
    LlmValues = "llm_values",
    /// Bytes of an error that are read.
    LlmError = "llm_error",
    /// Time until an answer begins.
    LlmFirstByteTime = "llm_first_byte_time",
    /// Time between two pieces of an answer.
    LlmIdleTime = "llm_idle_time",
    /// Time of one request as a whole.
    LlmTotalTime = "llm_total_time",
    /// Requests to one provider at once, of all guests.
    LlmConcurrency = "llm_concurrency",
    /// What has begun to be answered, and so to cost, is not asked again.
    LlmAskedOnce = "llm_asked_once",
    /// A key that a provider says back is taken out.
    LlmMask = "llm_mask",
    /// What a check against a guest's schema may cost.
    SchemaSize = "schema_size",
    /// What a regular expression in a schema may cost.
    SchemaPatterns = "schema_patterns",

    // Tools.
    /// Arguments fit the schema that the tool's server gave.
    ToolArguments = "tool_arguments",
    /// Bytes of a tool's output.
    ToolOutput = "tool_output",
    /// Bytes of a message of a tool server's.
    ToolMessage = "tool_message",
    /// Tools of one server.
    ToolCatalogue = "tool_catalogue",
    /// Time of one call.
    ToolTime = "tool_time",
    /// A tool server sees nothing of the daemon's environment.
    ToolEnvironment = "tool_environment",
    /// A credential that a tool server says back is taken out.
    ToolMask = "tool_mask",

    // Buckets and memories.
    /// Only an attempt that is the task's own writes.
    WriteFence = "write_fence",
    /// Keys of one call.
    KeysAtOnce = "keys_at_once",
    /// Entries of one answer of a memory.
    MemoryMatches = "memory_matches",
    /// Bytes of a key.
    KeyBytes = "key_bytes",
    /// Bytes of a value.
    ValueBytes = "value_bytes",
    /// Keys in all buckets of a plugin.
    BucketKeys = "bucket_keys",
    /// Bytes in all buckets of a plugin.
    BucketBytes = "bucket_bytes",
    /// Bytes of a text to be remembered.
    MemoryText = "memory_text",
    /// Entries in all memories of a plugin.
    MemoryEntries = "memory_entries",
}

impl Defence {
    /// Whether it stands: always, but for tests of what would happen without it.
    #[cfg(not(feature = "weakened"))]
    #[inline(always)]
    pub const fn stands(self) -> bool {
        true
    }

    /// Whether it stands, or `AGENTRY_WITHOUT` names it.
    #[cfg(feature = "weakened")]
    pub fn stands(self) -> bool {
        static WITHOUT: std::sync::OnceLock<Vec<Defence>> = std::sync::OnceLock::new();
        !WITHOUT.get_or_init(without).contains(&self)
    }
}

#[cfg(feature = "weakened")]
fn without() -> Vec<Defence> {
    let names = std::env::var("AGENTRY_WITHOUT").unwrap_or_default();
    let named = |name: &str| match Defence::ALL.iter().find(|defence| defence.name() == name) {
        Some(defence) => *defence,
        None => {
            let known: Vec<_> = Defence::ALL.iter().map(|defence| defence.name()).collect();
            // A test that takes away nothing must not pass for one that did.
            let text = format!("AGENTRY_WITHOUT={name:?} is no defence; known are {}\n", known.join(","));
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
            std::process::exit(2)
        }
    };
    names.split(',').filter(|name| !name.is_empty()).map(named).collect()
}
