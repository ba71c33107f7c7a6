//! Nexthop objects (`ip nexthop`, RTM_NEWNEXTHOP): ways out that several routes share.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Ifindex, NextHopFlags};

/// One nexthop object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NexthopObject {
    /// Its number (`NHA_ID`).
    pub id: u32,
    /// The link it leaves by.
    pub ifindex: Option<Ifindex>,
    /// The router.
    pub gateway: Option<IpAddr>,
    /// Drops instead of sending (`NHA_BLACKHOLE`).
    pub blackhole: bool,
    /// Members and their weights, if it is a group (`NHA_GROUP`).
    pub group: Vec<(u32, u16)>,
    /// `RTNH_F_*`.
    pub flags: NextHopFlags,
    /// Whether packets are wrapped (`NHA_ENCAP`).
    pub encapsulated: bool,
}
