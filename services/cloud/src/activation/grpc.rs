//! Activation over gRPC.

use baetyl_kit::error::chain;
use baetyl_kit::grpc::details;
use baetyl_proto::activation::activate_request::Proof;
use baetyl_proto::activation::activation_service_server::ActivationService;
use baetyl_proto::activation::{ActivateRequest, ActivateResponse};
use tonic::{Request, Response, Status};

use super::{ActivateError, Activated, Activator};
use crate::pki::NodeCsr;

/// The service of `baetyl.activation.v1`.
#[derive(Clone, Debug)]
pub(super) struct Service(pub(super) Activator);

#[tonic::async_trait]
impl ActivationService for Service {
    async fn activate(
        &self,
        request: Request<ActivateRequest>,
    ) -> Result<Response<ActivateResponse>, Status> {
        let answer = activate(&self.0, request.into_inner())
            .await
            .map_err(|error| status(&error))?;
        Ok(Response::new(to_wire(answer)))
    }
}

async fn activate(
    activator: &Activator,
    request: ActivateRequest,
) -> Result<Activated, ActivateError> {
    let token = match request.proof {
        None => return Err(ActivateError::NoProof),
        Some(Proof::Batch(_)) => return Err(ActivateError::Batch),
        Some(Proof::InstallToken(token)) => token,
    };
    if request.csr.is_empty() {
        return Err(ActivateError::NoCsr);
    }
    activator
        .activate(&token, &request.mode, || NodeCsr::from_der(&request.csr))
        .await
}

fn to_wire(answer: Activated) -> ActivateResponse {
    ActivateResponse {
        namespace: answer.node.namespace.to_string(),
        node_name: answer.node.name.to_string(),
        node_uid: answer.node.uid.to_string(),
        certificate_chain: vec![answer.certificate.certificate.to_vec().into()],
        trusted_authorities: vec![answer.authority.to_vec().into()],
        desire_keys: answer
            .desire_keys
            .iter()
            .map(|key| key.to_vec().into())
            .collect(),
        link_addresses: answer.link_addresses,
    }
}

/// The border: every error to its status.
fn status(error: &ActivateError) -> Status {
    let message = error.to_string();
    match error {
        ActivateError::NoProof
        | ActivateError::Token(_)
        | ActivateError::UsedUp(_)
        | ActivateError::NodeGone(_) => Status::unauthenticated(message),
        ActivateError::NoCsr | ActivateError::Csr(_) => details::invalid("csr", message),
        ActivateError::OtherKey(_) => Status::already_exists(message),
        ActivateError::Mode { .. } => Status::failed_precondition(message),
        ActivateError::Batch => Status::unimplemented(message),
        ActivateError::Pki(_) | ActivateError::Store(_) => {
            tracing::error!(error = %chain(error), "activation failed");
            Status::unavailable("the cloud cannot activate nodes at the moment; try again")
        }
    }
}
