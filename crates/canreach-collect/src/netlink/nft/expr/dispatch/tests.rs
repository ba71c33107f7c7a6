//! Forms that few kernels or versions of `nft` make, from bytes made by hand. The live tests have
//! the others.

use canreach_snapshot::nft::Bytes;
use canreach_snapshot::nft::expr::{
    BitwiseOp, CmpOp, ExthdrOp, MetaKey, NatRange, NfVerdict, Operand, Register, SocketKey,
};

use super::super::super::super::attr::push;
use super::*;

/// Attributes: a number, and four bytes in the network's order.
fn numbers(list: &[(u16, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    list.iter().for_each(|(kind, number)| push(&mut bytes, *kind, &number.to_be_bytes()));
    bytes
}

/// The same, and one attribute more.
fn and(mut bytes: Vec<u8>, kind: u16, payload: &[u8]) -> Vec<u8> {
    push(&mut bytes, kind, payload);
    bytes
}

/// A value, as `NFTA_DATA_VALUE` in an attribute.
fn value(bytes: &[u8]) -> Vec<u8> {
    and(Vec::new(), 1, bytes)
}

fn named(name: &str, data: &[u8]) -> Vec<u8> {
    and(and(Vec::new(), EXPR_NAME, format!("{name}\0").as_bytes()), EXPR_DATA, data)
}

fn read(name: &str, data: &[u8]) -> Expr {
    let bytes = named(name, data);
    decode(Attributes::new(&bytes), NfFamily::Inet).expect("it is well formed")
}

#[track_caller]
fn check(name: &str, data: &[u8], expected: Expr) {
    assert_eq!(read(name, data), expected);
}

#[track_caller]
fn check_opaque(name: &str, data: &[u8]) {
    check(name, data, Expr::Opaque(name.to_owned()));
}

const R1: Register = Register(0);
const R2: Register = Register(4);

#[test]
fn what_is_not_known_keeps_its_name() {
    check_opaque("inner", &numbers(&[(1, 0), (2, 1)]));
    check_opaque("", &[]);
    check("notrack", &[], Expr::Notrack);
    // Missing, of an unknown value, or beyond what this version knows.
    check_opaque("cmp", &numbers(&[(1, 1), (2, 0)]));
    check_opaque("meta", &numbers(&[(1, 1), (2, 3), (4, 1)]));
    check_opaque("meta", &numbers(&[(1, 5), (2, 3)]));
    check_opaque("payload", &numbers(&[(1, 1), (2, 5), (3, 0), (4, 4)]));
    check_opaque("fib", &numbers(&[(1, 1), (2, 1), (3, 0x41)]));
    check_opaque("lookup", &and(numbers(&[(2, 1), (5, 2)]), 1, b"s\0"));
    check_opaque("reject", &numbers(&[(1, 3)]));
    check_opaque("numgen", &numbers(&[(1, 1), (2, 4), (3, 2)]));
    check_opaque("exthdr", &and(numbers(&[(1, 1), (3, 0), (4, 1), (6, 9)]), 2, &[1]));
    check_opaque("objref", &numbers(&[(1, 1)]));
    check("meta", &numbers(&[(1, 1), (2, 99)]), Expr::Meta { dreg: R1, key: MetaKey::Other(99) });
}

#[test]
fn attributes_that_are_too_short_are_errors() {
    let bytes = named("cmp", &and(numbers(&[(2, 0)]), 1, &[1, 2]));
    assert!(decode(Attributes::new(&bytes), NfFamily::Ip).is_err());
}

#[test]
fn bitwise_of_every_kind() {
    let check = |more: &[u8], op: u32, expected| {
        let mut bytes = numbers(&[(1, 1), (2, 2), (3, 4), (6, op)]);
        bytes.extend_from_slice(more);
        check("bitwise", &bytes, Expr::Bitwise { sreg: R1, dreg: R2, len: 4, op: expected });
    };
    let data = |kind, bytes: &[u8]| and(Vec::new(), kind, &value(bytes));
    let mask_xor = [data(4, &[255, 0, 0, 0]), data(5, &[0, 0, 0, 1])].concat();
    let (mask, xor) = (Bytes::from([255, 0, 0, 0]), Bytes::from([0, 0, 0, 1]));
    check(&mask_xor, 0, BitwiseOp::MaskXor { mask, xor });
    check(&data(7, &3_u32.to_ne_bytes()), 1, BitwiseOp::Lshift(3));
    check(&data(7, &5_u32.to_ne_bytes()), 2, BitwiseOp::Rshift(5));
    let constant = || Operand::Constant(Bytes::from([1, 2, 3, 4]));
    check(&data(7, &[1, 2, 3, 4]), 3, BitwiseOp::And(constant()));
    check(&data(7, &[1, 2, 3, 4]), 4, BitwiseOp::Or(constant()));
    check(&numbers(&[(8, 9)]), 5, BitwiseOp::Xor(Operand::Register(Register(1))));
    check_opaque("bitwise", &numbers(&[(1, 1), (2, 2), (3, 4), (6, 6)]));
}

#[test]
fn packets_that_are_sent_elsewhere() {
    let queue = [&3_u16.to_be_bytes()[..], &0_u16.to_be_bytes(), &1_u16.to_be_bytes()];
    let queue = and(and(and(Vec::new(), 1, queue[0]), 2, queue[1]), 3, queue[2]);
    check("queue", &queue, Expr::Queue { number: 3, total: 0, bypass: true });
    let fast = Expr::FlowOffload { flowtable: "fast".to_owned() };
    check("flow_offload", &and(Vec::new(), 1, b"fast\0"), fast);
    check("dup", &numbers(&[(1, 1)]), Expr::Dup);
    check("fwd", &numbers(&[(1, 1)]), Expr::Fwd);
    let tproxy = |family, expected| {
        let expected = Expr::Tproxy { family: expected, addr: None, port: Some(R2) };
        check("tproxy", &numbers(&[(1, family), (3, 2)]), expected);
    };
    tproxy(0, NfFamily::Inet);
    tproxy(10, NfFamily::Ip6);
    let range =
        NatRange { proto_min: Some(R1), proto_max: Some(R2), flags: 2, ..NatRange::default() };
    check("masq", &numbers(&[(1, 2), (2, 1), (3, 2)]), Expr::Masq { range: range.clone() });
    check("redir", &numbers(&[(3, 2), (1, 1), (2, 2)]), Expr::Redir { range: range.clone() });
    let range = NatRange { addr_min: Some(R1), ..range };
    let nat = numbers(&[(1, 0), (2, 2), (3, 1), (5, 1), (6, 2), (7, 2)]);
    check("nat", &nat, Expr::Nat { source: true, family: NfFamily::Ip, range });
    check_opaque("nat", &numbers(&[(1, 2), (2, 2)]));
}

#[test]
fn values_of_the_packet_and_its_socket() {
    let cgroup = Expr::Socket { dreg: R1, key: SocketKey::Cgroupv2(2) };
    check("socket", &numbers(&[(1, 3), (2, 1), (3, 2)]), cgroup);
    check("tunnel", &numbers(&[(1, 1), (2, 1), (3, 0)]), Expr::Tunnel { dreg: R1, key: 1 });
    check("osf", &and(numbers(&[(1, 8)]), 2, &[0]), Expr::Osf { dreg: R1 });
    let option = and(numbers(&[(1, 1), (3, 2), (4, 2), (5, 0), (6, 4)]), 2, &[7]);
    let expected =
        Expr::Exthdr { dreg: R1, op: ExthdrOp::Dccp, kind: 7, offset: 2, len: 2, present: false };
    check("exthdr", &option, expected);
    let range = and(and(numbers(&[(1, 2), (2, 1)]), 3, &value(&[0, 5])), 4, &value(&[0, 9]));
    let (from, to) = (Bytes::from([0, 5]), Bytes::from([0, 9]));
    check("range", &range, Expr::Range { sreg: R2, op: CmpOp::Neq, from, to });
    check("last", &numbers(&[(1, 1)]), Expr::Last);
}

#[test]
fn a_verdict_goes_to_its_own_register_and_a_value_to_another() {
    let verdict = and(Vec::new(), 2, &numbers(&[(1, 1)]));
    let data = |register, data: &[u8]| and(numbers(&[(1, register)]), 2, data);
    check("immediate", &data(0, &verdict), Expr::Verdict(NfVerdict::Accept));
    let value = value(&[1, 2]);
    let loaded = Expr::Immediate { dreg: Register(3), value: Bytes::from([1, 2]) };
    check("immediate", &data(11, &value), loaded);
    check_opaque("immediate", &data(1, &verdict));
    check_opaque("immediate", &data(0, &value));
}

#[test]
fn an_expression_inside_another_holds_no_third() {
    let dynset = |inner: &[u8]| and(and(numbers(&[(3, 0), (4, 1), (9, 2)]), 1, b"s\0"), 7, inner);
    let mut nested = named("dynset", &dynset(&named("counter", &[])));
    for _ in 0..50 {
        nested = named("dynset", &dynset(&nested));
    }
    let Expr::Dynset { exprs, .. } = read("dynset", &dynset(&nested)) else {
        panic!("it is one");
    };
    assert_eq!(exprs, [Expr::Opaque("dynset".to_owned())]);
}
