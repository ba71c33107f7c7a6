//! What this version does not judge yet.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::{FibFlags, FibResult, Register, SocketKey};

use crate::host::ruleset::NatChain;
use crate::netfilter::chain::{Decision, Evaluation, State};
use crate::netfilter::expr::{At, Sink, Value};
use crate::netfilter::hook::{NfLost, Open, Strand};
use crate::netfilter::view::View;
use crate::{NfSubject, UnknownReason};

impl<'a> Evaluation<'_, '_, 'a> {
    pub(crate) fn fib(
        &mut self,
        at: At,
        register: Register,
        _what: (FibResult, FibFlags),
        state: State,
        sink: &mut Sink<'_>,
    ) {
        self.store(at, register, Value::Unknown(UnknownReason::NotModelled), state, sink);
    }

    pub(crate) fn socket(
        &mut self,
        at: At,
        register: Register,
        _key: SocketKey,
        state: State,
        sink: &mut Sink<'_>,
    ) {
        self.store(at, register, Value::Unknown(UnknownReason::NotModelled), state, sink);
    }

    pub(crate) fn xtables(&mut self, _at: At, _: &'a Expr, state: State, sink: &mut Sink<'_>) {
        sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
    }

    pub(crate) fn translate(&mut self, _at: At, _: &'a Expr, state: State, sink: &mut Sink<'_>) {
        sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
    }

    pub(crate) fn translate_all(&mut self, _source: bool, open: Vec<Open>) -> Vec<Open> {
        let mut passed = Vec::new();
        for strand in open {
            let chains =
                self.host.ruleset().nat_chains(strand.view.family, self.place.hook).first();
            match chains {
                Some(NatChain::Nft { table, chain, .. })
                    if strand.view.connection.is_attached() =>
                {
                    let subject = NfSubject::NftPolicy { table: *table, chain: *chain };
                    let Open { set, view } = strand;
                    let strand = Strand { set, view: View::clone(&view), by: None };
                    let reason = UnknownReason::NotModelled;
                    self.lost.push((strand, NfLost { subject, reason }));
                }
                _ => passed.push(strand),
            }
        }
        passed
    }

    pub(crate) fn tproxy(
        &mut self,
        _at: At,
        _what: (NfFamily, Option<Register>, Option<Register>),
        state: State,
        sink: &mut Sink<'_>,
    ) {
        sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
    }
}
