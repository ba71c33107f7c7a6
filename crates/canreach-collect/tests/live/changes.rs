//! Reading while the namespace changes.

use std::sync::atomic::{AtomicBool, Ordering};

use canreach_snapshot::GapReason;

use crate::namespace::{Namespace, gaps};

/// Ends the changes, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Addresses and the routes that come with them are added and removed the whole time. Whatever is
/// read without a gap must fit together: each address has its local route, and no other has one.
#[test]
fn a_picture_without_gaps_is_not_torn() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip("link set lo up\nlink add left type veth peer name right\nlink set left up\n");
    let add: String = (1..200).map(|n| format!("address add 10.0.{n}.1/24 dev left\n")).collect();
    let flush = "address flush dev left\n";
    let done = AtomicBool::new(false);
    let mut judged = 0;
    std::thread::scope(|scope| {
        let (namespace, stop) = (&namespace, Stop(&done));
        let done = &done;
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                namespace.ip(&add);
                namespace.ip(flush);
            }
        });
        for _ in 0..80 {
            let netns = namespace.read();
            if !gaps(&netns).is_empty() {
                let changed = |reason: &GapReason| *reason == GapReason::ChangedWhileReading;
                assert!(gaps(&netns).iter().all(|gap| changed(&gap.reason)), "{:?}", netns.gaps);
                continue;
            }
            judged += 1;
            let mut addresses: Vec<_> =
                netns.addresses.iter().map(|row| row.address()).filter(|ip| ip.is_ipv4()).collect();
            let own = |kind| kind == canreach_snapshot::RouteType::Local;
            let hosts = netns.routes.iter().filter(|route| own(route.kind));
            let hosts = hosts.map(|route| route.destination).filter(|to| to.length() == 32);
            let mut routed: Vec<_> = hosts.map(|to| to.address()).collect();
            addresses.sort_unstable();
            routed.sort_unstable();
            assert_eq!(addresses, routed);
        }
        drop(stop);
    });
    assert!(judged > 0, "each reading was disturbed");
}
