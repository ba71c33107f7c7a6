//! What this version does not judge yet.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::{FibFlags, FibResult, Register, SocketKey};

use crate::UnknownReason;
use crate::netfilter::chain::{Decision, Evaluation, State};
use crate::netfilter::expr::{At, Sink, Value};

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
