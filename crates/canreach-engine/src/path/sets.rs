//! What a walk computes with: sets of packets, and what of the rules cannot be judged.
//!
//! *Kernel:* none.
//! *Decides:* nothing.
//! *Reads:* nothing.
//! *Not modelled:* nothing.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use canreach_snapshot::Family;

use crate::netfilter::hook::Neutral;
use crate::netfilter::unknown::Unknowns;
use crate::packet::diagram::Diagram;
use crate::{NetnsIndex, Stage};

/// The arena of sets, and what was met among rules so far.
#[derive(Debug)]
pub(crate) struct Sets {
    diagram: Diagram,
    /// Predicates of rules that cannot be judged.
    pub(crate) unknowns: Unknowns,
    /// The stage and the namespace at which each of them was met.
    pub(crate) met_at: Vec<(Stage, NetnsIndex)>,
    /// The namespace that packets are in.
    pub(crate) here: NetnsIndex,
    /// Rules that are skipped, and policies that accept, to find what would stop a packet next; for
    /// each namespace.
    pub(crate) neutral: BTreeMap<NetnsIndex, Neutral>,
    /// Whether packets are told apart by the rule that decides.
    pub(crate) names_rules: bool,
}

impl Sets {
    pub(crate) fn new(family: Family, here: NetnsIndex) -> Self {
        Self {
            diagram: Diagram::new(family),
            unknowns: Unknowns::default(),
            met_at: Vec::new(),
            here,
            neutral: BTreeMap::new(),
            names_rules: false,
        }
    }
}

impl Deref for Sets {
    type Target = Diagram;

    fn deref(&self) -> &Diagram {
        &self.diagram
    }
}

impl DerefMut for Sets {
    fn deref_mut(&mut self) -> &mut Diagram {
        &mut self.diagram
    }
}
