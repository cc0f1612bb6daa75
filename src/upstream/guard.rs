//! Pure: may the relay dial this address? (The guard against server-side request forgery.)
//!
//! Every address that is not plain public unicast is refused unless `security.upstream_allowed_networks` names a network
//! that holds it. An address of version 6 that carries one of version 4 is judged by what it carries.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// Why an address is not plain public unicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// 0.0.0.0 and ::.
    Unspecified,
    /// 0/8.
    ThisNetwork,
    /// 127/8 and ::1.
    Loopback,
    /// 10/8, 172.16/12, 192.168/16.
    Private,
    /// 169.254/16 and fe80::/10.
    LinkLocal,
    /// fc00::/7, and fec0::/10 that came before it.
    UniqueLocal,
    /// 100.64/10.
    Shared,
    /// 224/4 and ff00::/8.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// 192.0.2/24, 198.51.100/24, 203.0.113/24, 2001:db8::/32, 3fff::/20.
    Documentation,
    /// 198.18/15 and 2001:2::/48.
    Benchmarking,
    /// Where a cloud tells a machine its credentials.
    CloudMetadata,
    /// What is left of IANA's special and unassigned blocks.
    Reserved,
}

impl Class {
    /// The words in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::ThisNetwork => "this-network (0.0.0.0/8)",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::UniqueLocal => "unique-local",
            Self::Shared => "shared (100.64.0.0/10)",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::CloudMetadata => "cloud metadata",
            Self::Reserved => "reserved",
        }
    }
}

/// An address the guard refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forbidden {
    /// The address.
    pub ip: IpAddr,
    /// The address of version 4 inside it by which it was judged.
    pub carried: Option<Ipv4Addr>,
    /// What it is.
    pub class: Class,
    /// The line of the configuration that would allow it, with what is allowed already.
    pub hint: String,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the upstream address {} is a {} address", self.ip, self.class.as_str())?;
        if let Some(v4) = self.carried {
            write!(f, " (it carries {v4})")?;
        }
        write!(f, " and not allowed; to allow it: {}", self.hint)
    }
}

impl std::error::Error for Forbidden {}

/// Judges one address.
///
/// A mapped address (`::ffff:a.b.c.d`) is the address of version 4 that it maps: networks of version 4 allow it. Other
/// addresses that carry one of version 4 reach it through someone's gateway: only a network of version 6 allows them.
///
/// # Errors
/// [`Forbidden`], with the configuration line that would allow it.
pub fn judge(ip: IpAddr, allowed: &[IpNetwork]) -> Result<(), Forbidden> {
    let Some((class, carried)) = classify(ip) else {
        return Ok(());
    };
    if allowed.iter().any(|&network| holds(network, ip)) {
        return Ok(());
    }
    Err(Forbidden { ip, carried, class, hint: hint(ip, allowed) })
}

/// Whether `network` names `ip`. `::/0` means addresses of version 6, not every address of version 4 in its mapped form.
fn holds(network: IpNetwork, ip: IpAddr) -> bool {
    match (network, ip.to_canonical(), ip) {
        (IpNetwork::V4(network), IpAddr::V4(v4), _) => network.contains(v4),
        (IpNetwork::V6(network), IpAddr::V4(_), IpAddr::V6(mapped)) => network.prefix() >= 96 && network.contains(mapped),
        (IpNetwork::V6(network), IpAddr::V6(v6), _) => network.contains(v6),
        (IpNetwork::V4(_), IpAddr::V6(_), _) | (IpNetwork::V6(_), IpAddr::V4(_), IpAddr::V4(_)) => false,
    }
}

fn hint(ip: IpAddr, allowed: &[IpNetwork]) -> String {
    let ip = ip.to_canonical();
    let own = format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
    let all: Vec<String> = allowed.iter().map(ToString::to_string).chain([own]).map(|network| format!("\"{network}\"")).collect();
    format!("\"security\": {{ \"upstream_allowed_networks\": [{}] }}", all.join(", "))
}

/// The class of an address, with the address of version 4 that decided; nothing for plain public unicast.
fn classify(ip: IpAddr) -> Option<(Class, Option<Ipv4Addr>)> {
    match ip {
        IpAddr::V4(v4) => classify_v4(v4).map(|class| (class, None)),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

/// Metadata and credential services, also those that stand in address space which is otherwise public.
const METADATA_V4: [Ipv4Addr; 7] = [
    Ipv4Addr::new(169, 254, 169, 254), // AWS, Google, Azure, OpenStack and most others
    Ipv4Addr::new(169, 254, 169, 253), // AWS, DNS
    Ipv4Addr::new(169, 254, 170, 2),   // AWS ECS
    Ipv4Addr::new(169, 254, 170, 23),  // AWS EKS
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle
    Ipv4Addr::new(168, 63, 129, 16),   // Azure's wire server
];

const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), // AWS
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),  // AWS EKS
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),  // Google
];

/// IANA's registry of special addresses of version 4.
fn classify_v4(ip: Ipv4Addr) -> Option<Class> {
    if METADATA_V4.contains(&ip) {
        return Some(Class::CloudMetadata);
    }
    Some(match ip.octets() {
        [0, 0, 0, 0] => Class::Unspecified,
        [0, ..] => Class::ThisNetwork,
        [127, ..] => Class::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Class::Private,
        [169, 254, ..] => Class::LinkLocal,
        [100, 64..=127, ..] => Class::Shared,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Class::Documentation,
        [198, 18..=19, ..] => Class::Benchmarking,
        [192, 0, 0, _] | [192, 88, 99, _] => Class::Reserved,
        [224..=239, ..] => Class::Multicast,
        [255, 255, 255, 255] => Class::Broadcast,
        [240..=255, ..] => Class::Reserved,
        _ => return None,
    })
}

fn classify_v6(ip: Ipv6Addr) -> Option<(Class, Option<Ipv4Addr>)> {
    let plain = |class| Some((class, None));
    if METADATA_V6.contains(&ip) {
        return plain(Class::CloudMetadata);
    }
    if let Some(carried) = carried(ip) {
        return carried.into_iter().find_map(|v4| classify_v4(v4).map(|class| (class, Some(v4))));
    }
    let s = ip.segments();
    plain(match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Class::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Class::Loopback,
        _ if ip.is_unicast_link_local() => Class::LinkLocal,
        _ if ip.is_unique_local() || s[0] & 0xffc0 == 0xfec0 => Class::UniqueLocal,
        _ if ip.is_multicast() => Class::Multicast,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Class::Documentation,
        [0x2001, 2, 0, ..] => Class::Benchmarking,
        // 2001::/23 is for protocols (Teredo is judged above); 2000::/3 is all that IANA gives out.
        [0x2001, 0..=0x1ff, ..] => Class::Reserved,
        [0x2000..=0x3fff, ..] => return None,
        _ => Class::Reserved,
    })
}

/// The addresses of version 4 that `ip` may stand for; `None` when it carries none.
fn carried(ip: Ipv6Addr) -> Option<Vec<Ipv4Addr>> {
    let o = ip.octets();
    let at = |a: usize, b: usize, c: usize, d: usize| Ipv4Addr::new(o[a], o[b], o[c], o[d]);
    let last = at(12, 13, 14, 15);
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Compatible, mapped, and SIIT's ::ffff:0:a.b.c.d.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(vec![last]),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(vec![last]),
        // RFC 8215 leaves the prefix's length inside 64:ff9b:1::/48 to the network; RFC 6052 says where the address is then.
        // What reads as 0.x.y.z is another length's padding.
        [0x64, 0xff9b, 1, ..] => {
            let others = [at(6, 7, 9, 10), at(7, 9, 10, 11), at(9, 10, 11, 12)];
            Some([last].into_iter().chain(others.into_iter().filter(|v4| v4.octets()[0] != 0)).collect())
        }
        [0x2002, ..] => Some(vec![at(2, 3, 4, 5)]),
        // Teredo: the server, and the client with its bits turned over.
        [0x2001, 0, ..] => Some(vec![!last, at(4, 5, 6, 7)]),
        _ => None,
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
