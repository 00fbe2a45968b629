//! Which desire a node is sent, and when it is asked to prove what it holds. Pure.
//!
//! A node says what it holds; that is a claim and changes nothing at the cloud beyond what this node is sent. A claim
//! newer than the cloud's own state means that the state went back or the node is wrong: the node is asked to present
//! the signed desire, and only our own signature on it raises the epoch.

use baetyl_model::desire::Header;
use baetyl_model::Epoch;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The node has it, or is on its way to.
    Nothing,
    /// Send the current desire.
    Send,
    /// Ask for the signed desire the node claims to hold.
    AskPresent,
}

/// What is known of one node's desire during one stream.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    /// Of the desires this node gets.
    epoch: Epoch,
    /// What the node says it holds.
    held: Option<Header>,
    /// What was sent last on this stream.
    sent: Option<Header>,
    /// The node was asked and has not answered.
    asking: bool,
    /// The node refused as if it held something newer than it said.
    contradicted: bool,
    /// The node could not prove its claim, which no longer counts.
    disproved: bool,
}

impl Offer {
    pub(super) const fn new(epoch: Epoch, held: Option<Header>) -> Self {
        Self { epoch, held, sent: None, asking: false, contradicted: false, disproved: false }
    }

    pub(super) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) const fn is_asking(&self) -> bool {
        self.asking
    }

    /// What to do about `current`, the desire as this cloud derives it now.
    pub(super) fn step(&self, current: &Header) -> Step {
        if self.asking {
            return Step::Nothing;
        }
        if self.contradicted && !self.disproved {
            return Step::AskPresent;
        }
        let held = self.held.as_ref().filter(|_| !self.disproved);
        if held.is_some_and(|held| is_newer(held, current)) {
            return Step::AskPresent;
        }
        // What was sent counts more than what was held: it is on its way to replace it.
        let last = self.sent.as_ref().or(held);
        let same = last.is_some_and(|last| last.epoch == current.epoch && last.digest == current.digest);
        if same { Step::Nothing } else { Step::Send }
    }

    /// True when what the node says it holds is what it would be sent: as good as an acknowledgement.
    pub(super) fn holds(&self, current: &Header) -> bool {
        self.held.as_ref().is_some_and(|held| {
            held.epoch == current.epoch && held.digest == current.digest && held.generation <= current.generation
        })
    }

    pub(super) fn sent(&mut self, header: Header) {
        self.sent = Some(header);
    }

    pub(super) fn asked(&mut self) {
        self.asking = true;
    }

    /// The node has this on disk. False when it was never sent on this stream and is not to be believed.
    pub(super) fn acknowledged(&mut self, header: &Header) -> bool {
        let known = self.sent.as_ref() == Some(header);
        if known {
            self.held = Some(header.clone());
            self.disproved = false;
            self.contradicted = false;
        }
        known
    }

    /// The node refused what was sent. Only a refusal for order tells something about what it holds.
    pub(super) fn refused(&mut self, word: &str) {
        if matches!(word, "stale" | "conflict") && !self.asking {
            self.contradicted = true;
        }
    }

    /// The node proved that it holds `header`, signed by us. The new epoch when that is newer than `current`.
    pub(super) fn proved(&mut self, header: Header, current: &Header) -> Option<Epoch> {
        self.asking = false;
        self.contradicted = false;
        let newer = is_newer(&header, current);
        let epoch = header.epoch.next();
        self.held = Some(header);
        self.disproved = false;
        newer.then(|| {
            self.epoch = epoch;
            epoch
        })
    }

    /// The node presented nothing that this cloud signed for it.
    pub(super) const fn disproved(&mut self) {
        self.asking = false;
        self.contradicted = false;
        self.disproved = true;
    }
}

/// True when a node that holds `held` would refuse `current`.
fn is_newer(held: &Header, current: &Header) -> bool {
    match held.order().cmp(&current.order()) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => held.digest != current.digest,
        std::cmp::Ordering::Less => false,
    }
}

#[cfg(test)]
mod tests {
    use baetyl_model::desire::{Accept, accept_desire};
    use baetyl_model::{Digest, Generation};

    use super::*;

    fn header(epoch: u64, generation: u64, content: u8) -> Header {
        Header {
            node_uid: "uid-1".parse().unwrap(),
            epoch: Epoch(epoch),
            generation: Generation(generation),
            digest: Digest::from_sha256([content; 32]),
        }
    }

    #[test]
    fn a_node_without_a_desire_is_sent_one_once() {
        let mut offer = Offer::new(Epoch(0), None);
        let current = header(0, 5, 1);
        assert_eq!(offer.step(&current), Step::Send);
        offer.sent(current.clone());
        assert_eq!(offer.step(&current), Step::Nothing);
        assert!(offer.acknowledged(&current));
        assert_eq!(offer.step(&header(0, 6, 1)), Step::Nothing, "a new revision with the same content is no news");
        assert_eq!(offer.step(&header(0, 7, 2)), Step::Send);
    }

    #[test]
    fn a_node_that_holds_the_current_content_is_sent_nothing() {
        let offer = Offer::new(Epoch(0), Some(header(0, 5, 1)));
        assert_eq!(offer.step(&header(0, 9, 1)), Step::Nothing);
        assert!(offer.holds(&header(0, 9, 1)));
        assert_eq!(offer.step(&header(0, 9, 2)), Step::Send);
        assert!(!offer.holds(&header(0, 9, 2)));
    }

    #[test]
    fn a_change_that_is_taken_back_before_it_was_acknowledged_is_sent_again() {
        let mut offer = Offer::new(Epoch(0), Some(header(0, 5, 1)));
        offer.sent(header(0, 6, 2));
        assert_eq!(offer.step(&header(0, 7, 1)), Step::Send);
    }

    #[test]
    fn a_claim_newer_than_our_state_is_asked_for_and_alone_changes_nothing() {
        for claim in [header(0, 10, 2), header(1, 1, 2), header(0, 9, 2)] {
            let mut offer = Offer::new(Epoch(0), Some(claim.clone()));
            assert_eq!(offer.step(&header(0, 9, 1)), Step::AskPresent, "{claim}");
            offer.asked();
            assert_eq!(offer.step(&header(0, 9, 1)), Step::Nothing);
            offer.disproved();
            assert_eq!(offer.epoch(), Epoch(0));
            assert_eq!(offer.step(&header(0, 9, 1)), Step::Send, "it is treated like a node that holds nothing");
        }
    }

    #[test]
    fn a_proof_raises_the_epoch_above_it_and_the_node_then_accepts() {
        for held in [header(0, 10, 2), header(3, 1, 2), header(0, 9, 2), header(0, 10, 1)] {
            let mut offer = Offer::new(Epoch(0), Some(held.clone()));
            let current = header(0, 9, 1);
            offer.asked();
            let epoch = offer.proved(held.clone(), &current).unwrap();
            assert_eq!(epoch, held.epoch.next());
            let raised = header(epoch.get(), 9, 1);
            assert_eq!(offer.step(&raised), Step::Send);
            assert_eq!(accept_desire(None, Some(&held), &raised), Accept::New);
        }
    }

    #[test]
    fn a_proof_of_something_older_changes_no_epoch() {
        let mut offer = Offer::new(Epoch(0), Some(header(0, 10, 2)));
        offer.asked();
        assert_eq!(offer.proved(header(0, 8, 2), &header(0, 9, 1)), None);
        assert_eq!(offer.step(&header(0, 9, 1)), Step::Send);
    }

    #[test]
    fn a_refusal_for_order_asks_for_a_proof_once_and_never_loops() {
        let mut offer = Offer::new(Epoch(0), None);
        let current = header(0, 5, 1);
        offer.sent(current.clone());
        offer.refused("stale");
        assert_eq!(offer.step(&current), Step::AskPresent);
        offer.asked();
        offer.disproved();
        assert_eq!(offer.step(&current), Step::Nothing, "it was sent and refused; only news is worth another try");
        assert_eq!(offer.step(&header(0, 6, 2)), Step::Send);
    }

    #[test]
    fn a_refusal_for_another_reason_waits_for_news() {
        for word in ["signature", "wrong-node", "malformed", "odd"] {
            let mut offer = Offer::new(Epoch(0), None);
            offer.sent(header(0, 5, 1));
            offer.refused(word);
            assert_eq!(offer.step(&header(0, 5, 1)), Step::Nothing);
            assert_eq!(offer.step(&header(0, 6, 2)), Step::Send);
        }
    }

    #[test]
    fn an_acknowledgement_of_something_never_sent_is_not_believed() {
        let mut offer = Offer::new(Epoch(0), None);
        assert!(!offer.acknowledged(&header(0, 99, 9)));
        assert_eq!(offer.step(&header(0, 5, 1)), Step::Send);
    }
}
