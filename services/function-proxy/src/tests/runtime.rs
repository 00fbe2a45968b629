//! A runtime that does what the test says, message by message.

use baetyl_proto::function::failure::Kind;
use baetyl_proto::function::register_request::Message as Up;
use baetyl_proto::function::register_response::Message as Down;
use baetyl_proto::function::runtime_service_client::RuntimeServiceClient;
use baetyl_proto::function::{
    Chunk, Failure, FunctionSpec, Invocation, RegisterRequest, RegisterResponse, Registered,
    Registration, Result as FunctionResult,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::*;

/// Ends with this.
pub(super) struct Echo(#[expect(dead_code, reason = "only kept")] AbortOnDropHandle<()>);

pub(super) struct Runtime {
    out: Option<mpsc::Sender<RegisterRequest>>,
    incoming: Streaming<RegisterResponse>,
    pub(super) registered: Registered,
}

pub(super) fn registration(
    app: &str,
    instance: &str,
    functions: &[&str],
    concurrency: u32,
) -> Registration {
    let spec = |name: &&str| FunctionSpec {
        name: (*name).to_owned(),
        ..FunctionSpec::default()
    };
    Registration {
        protocol_min: 1,
        protocol_max: 1,
        runtime: "script".to_owned(),
        app: app.to_owned(),
        service: app.to_owned(),
        instance: instance.to_owned(),
        functions: functions.iter().map(spec).collect(),
        concurrency,
        ..Registration::default()
    }
}

impl Runtime {
    pub(super) async fn register(
        world: &World,
        app: &str,
        instance: &str,
        functions: &[&str],
        concurrency: u32,
    ) -> Result<Self, Status> {
        let token = token(&world.key, app, app, instance);
        Self::connect(
            world,
            Some(&token),
            Up::Registration(registration(app, instance, functions, concurrency)),
        )
        .await
    }

    /// Says this first.
    pub(super) async fn connect(
        world: &World,
        token: Option<&str>,
        first: Up,
    ) -> Result<Self, Status> {
        let mut connect = Connect::new(Endpoint::unix(world.kit.app_socket("function-proxy")));
        if let Some(token) = token {
            connect = connect.bearer(token);
        }
        Self::connect_over(connect.lazy().unwrap(), first).await
    }

    /// Says this first, on this way.
    pub(super) async fn connect_over(channel: Client, first: Up) -> Result<Self, Status> {
        let (out, outgoing) = mpsc::channel(64);
        out.try_send(RegisterRequest {
            message: Some(first),
        })
        .unwrap();
        let mut client = RuntimeServiceClient::new(channel)
            .max_decoding_message_size(crate::grpc::MAX_MESSAGE)
            .max_encoding_message_size(2 * crate::grpc::MAX_MESSAGE);
        let mut incoming = client
            .register(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        match incoming.message().await?.and_then(|first| first.message) {
            Some(Down::Registered(registered)) => Ok(Self {
                out: Some(out),
                incoming,
                registered,
            }),
            other => panic!("not registered: {other:?}"),
        }
    }

    pub(super) async fn say(&self, message: Up) {
        let sent = self
            .out
            .as_ref()
            .unwrap()
            .send(RegisterRequest {
                message: Some(message),
            })
            .await;
        sent.unwrap();
    }

    /// Says no more; what is said to it is still heard.
    pub(super) fn hang_up(&mut self) {
        self.out = None;
    }

    /// The next message that is no heartbeat; the status when the proxy has ended the stream.
    pub(super) async fn next(&mut self) -> Result<Down, Status> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.incoming.message())
                .await
                .expect("nothing came")?;
            match message.map(|message| message.message.unwrap()) {
                Some(Down::Heartbeat(_)) => {}
                Some(message) => return Ok(message),
                None => return Err(Status::ok("ended")),
            }
        }
    }

    pub(super) async fn invocation(&mut self) -> Invocation {
        match self.next().await {
            Ok(Down::Invoke(invocation)) => invocation,
            other => panic!("not an invocation: {other:?}"),
        }
    }

    pub(super) async fn cancelled(&mut self) -> u64 {
        match self.next().await {
            Ok(Down::Cancel(cancel)) => cancel.invocation,
            other => panic!("not a cancellation: {other:?}"),
        }
    }

    pub(super) async fn answer(&self, invocation: u64, payload: impl Into<Bytes>) {
        self.answer_with(invocation, payload, &[]).await;
    }

    pub(super) async fn answer_with(
        &self,
        invocation: u64,
        payload: impl Into<Bytes>,
        metadata: &[(&str, &str)],
    ) {
        let result = FunctionResult {
            invocation,
            payload: payload.into(),
            metadata: pairs(metadata),
        };
        self.say(Up::Result(result)).await;
    }

    pub(super) async fn chunk(&self, invocation: u64, payload: impl Into<Bytes>) {
        self.say(Up::Chunk(Chunk {
            invocation,
            payload: payload.into(),
        }))
        .await;
    }

    pub(super) async fn fail(&self, invocation: u64, kind: Kind, message: &str) {
        let failure = Failure {
            invocation,
            kind: kind.into(),
            message: message.to_owned(),
        };
        self.say(Up::Failure(failure)).await;
    }

    /// Echoes every call from now on, as long as what is returned is kept.
    pub(super) fn echo(mut self) -> Echo {
        Echo(AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok(message) = self.next().await {
                if let Down::Invoke(invocation) = message {
                    self.answer(invocation.invocation, invocation.payload).await;
                }
            }
        })))
    }
}
