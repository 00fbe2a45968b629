//! Commands of operators: executed at most once each, by the service that can; their results go back.

use std::sync::Arc;
use std::time::Duration;

use baetyl_kit::Tasks;
use baetyl_kit::error::chain;
use baetyl_kit::grpc::{self, Client};
use baetyl_kit::trace::TraceContext;
use baetyl_proto::engine::RestartAppRequest;
use baetyl_proto::engine::engine_service_client::EngineServiceClient;
use baetyl_proto::function::InvokeRequest;
use baetyl_proto::function::function_service_client::FunctionServiceClient;
use baetyl_proto::link::{Command, CommandResult};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::sync::{Semaphore, mpsc};
use tonic::{Code, Status};

use crate::blocking;
use crate::outbox::results::{Begun, Commands};

/// Commands that run at the same time; more are answered with RESOURCE_EXHAUSTED.
const AT_ONCE: usize = 8;

/// For commands that say nothing.
const TIMEOUT: Duration = Duration::from_secs(30);

/// No command runs longer.
const LONGEST: Duration = Duration::from_secs(600);

/// Arguments of `restart-app`.
#[derive(Deserialize)]
struct RestartArguments {
    name: String,
}

/// Arguments of `invoke`.
#[derive(Deserialize)]
struct InvokeArguments {
    service: String,
    #[serde(default)]
    function: String,
    /// Base64.
    #[serde(default)]
    payload: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Payload of the result of `invoke`.
#[derive(Serialize)]
struct InvokeAnswer {
    /// Base64.
    payload: String,
    metadata: BTreeMap<String, String>,
    #[serde(rename = "invokeId")]
    invoke_id: String,
}

/// Executes commands. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    commands: Commands,
    engine: EngineServiceClient<Client>,
    functions: FunctionServiceClient<Client>,
    slots: Arc<Semaphore>,
    results: mpsc::Sender<CommandResult>,
    tasks: Tasks,
}

impl Dispatcher {
    /// Results go into `results`, also those of earlier streams.
    pub(crate) fn new(
        commands: Commands,
        engine: Client,
        functions: Client,
        results: mpsc::Sender<CommandResult>,
        tasks: Tasks,
    ) -> Self {
        Self {
            commands,
            engine: EngineServiceClient::new(engine),
            functions: FunctionServiceClient::new(functions),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            results,
            tasks,
        }
    }

    /// Begins to execute a command, or tells again how it ended.
    pub(crate) fn dispatch(&self, command: Command) {
        let dispatcher = self.clone();
        let answer = async move {
            if let Some(result) = dispatcher.answer(command).await {
                // Fails only when sync stops.
                let _ = dispatcher.results.send(result).await;
            }
        };
        self.tasks
            .spawn_until_shutdown("command", TraceContext::root().scope(answer));
    }

    /// None when the command runs already: that run will answer.
    async fn answer(&self, command: Command) -> Option<CommandResult> {
        let id = command.id.clone();
        // Before it counts as begun: a refused command may be sent again.
        let Ok(_slot) = self.slots.try_acquire() else {
            let busy = Status::resource_exhausted("too many commands run on this node; try again");
            return Some(result(id, Err(busy)));
        };
        let (commands, begun) = (self.commands.clone(), id.clone());
        match blocking(move || commands.begin(&begun)).await {
            Ok(Begun::New) => {}
            Ok(Begun::Started) => return None,
            Ok(Begun::Done(result)) => return Some(result),
            Err(error) => {
                let failed = Status::unavailable(format!("not executed: {}", chain(&error)));
                return Some(result(id, Err(failed)));
            }
        }
        tracing::info!(
            id,
            kind = command.kind,
            "executing a command of an operator"
        );
        let result = result(id, self.execute(command).await);
        let (commands, kept) = (self.commands.clone(), result.clone());
        if let Err(error) = blocking(move || commands.finish(&kept)).await {
            tracing::warn!(error = %chain(&error), "the result of a command could not be kept");
        }
        Some(result)
    }

    async fn execute(&self, command: Command) -> Result<Bytes, Status> {
        let timeout = match command.timeout_ms {
            0 => TIMEOUT,
            millis => Duration::from_millis(millis.into()).min(LONGEST),
        };
        let executed = async {
            match command.kind.as_str() {
                "restart-app" => self.restart_app(&command.arguments, timeout).await,
                "invoke" => self.invoke(&command.arguments, timeout).await,
                other => Err(Status::unimplemented(format!(
                    "this node does not know the command {other:?}"
                ))),
            }
        };
        tokio::time::timeout(timeout, executed)
            .await
            .unwrap_or_else(|_| {
                let seconds = timeout.as_secs_f32();
                Err(Status::deadline_exceeded(format!(
                    "it took longer than {seconds} s"
                )))
            })
    }

    async fn restart_app(&self, arguments: &[u8], timeout: Duration) -> Result<Bytes, Status> {
        let RestartArguments { name } = parse(arguments)?;
        let request = grpc::unary_within(timeout, RestartAppRequest { name });
        self.engine.clone().restart_app(request).await?;
        Ok(Bytes::new())
    }

    async fn invoke(&self, arguments: &[u8], timeout: Duration) -> Result<Bytes, Status> {
        let arguments: InvokeArguments = parse(arguments)?;
        let payload = STANDARD
            .decode(&arguments.payload)
            .map_err(|error| Status::invalid_argument(format!("payload: {error}")))?;
        let request = InvokeRequest {
            service: arguments.service,
            function: arguments.function,
            payload: payload.into(),
            metadata: arguments.metadata,
        };
        let request = grpc::unary_within(timeout, request);
        let answer = self.functions.clone().invoke(request).await?.into_inner();
        let answer = InvokeAnswer {
            payload: STANDARD.encode(&answer.payload),
            metadata: answer.metadata,
            invoke_id: answer.invoke_id,
        };
        serde_json::to_vec(&answer)
            .map(Bytes::from)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

fn parse<'a, T: Deserialize<'a>>(arguments: &'a [u8]) -> Result<T, Status> {
    serde_json::from_slice(arguments)
        .map_err(|error| Status::invalid_argument(format!("the arguments: {error}")))
}

fn result(command_id: String, ended: Result<Bytes, Status>) -> CommandResult {
    match ended {
        Ok(payload) => CommandResult {
            command_id,
            code: Code::Ok.into(),
            message: String::new(),
            payload,
        },
        Err(status) => CommandResult {
            command_id,
            code: status.code().into(),
            message: status.message().to_owned(),
            payload: Bytes::new(),
        },
    }
}
