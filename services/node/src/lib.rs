//! Owner of the node shadow: desire ledger, properties, node information.
