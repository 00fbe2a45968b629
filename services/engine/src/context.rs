//! What the tasks of engine share.

use baetyl_kit::clock::Clock;
use baetyl_kit::tasks::Tasks;
use tokio::sync::watch;

use crate::board::Board;
use crate::certificates::Authority;
use crate::config::Config;
use crate::events::Events;
use crate::housekeeping::Housekeeping;
use crate::meters::Meters;
use crate::objects::Objects;
use crate::ports::Ports;
use crate::registry::Registry;
use crate::store::Store;
use crate::token::TokenIssuer;

/// What the tasks of engine share.
pub(crate) struct Context<P: Ports> {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    pub(crate) store: Store,
    pub(crate) objects: Objects,
    pub(crate) registry: Registry,
    pub(crate) tokens: TokenIssuer,
    pub(crate) certificates: Authority,
    pub(crate) meters: Meters,
    pub(crate) runtime: P::Runtime,
    pub(crate) content: P::Content,
    pub(crate) shadow: P::Shadow,
    pub(crate) board: Board,
    pub(crate) events: Events,
    pub(crate) housekeeping: Housekeeping,
    /// True while the cloud can be reached.
    pub(crate) online: watch::Sender<bool>,
}
