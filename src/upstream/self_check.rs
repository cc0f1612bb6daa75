//! Is this address the relay's own door?
//!
//! A relay that dials itself multiplies one stream until nothing is left; no setting allows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Whether a connection to `address` would arrive at one of `own`, the addresses that the relay listens on.
pub(super) fn is_own(address: SocketAddr, own: &[SocketAddr]) -> bool {
    let ip = address.ip().to_canonical();
    let hits = |door: &&SocketAddr| {
        let door_ip = door.ip().to_canonical();
        // Dialling 0.0.0.0 or :: reaches this machine's loopback.
        let meets = door_ip.is_unspecified() || door_ip == ip || (ip.is_unspecified() && door_ip.is_loopback());
        door.port() == address.port() && meets
    };
    own.iter().any(|door| hits(&door)) && is_local(ip)
}

/// Whether `ip` is an address of this machine: the kernel takes it as the source of packets to itself.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || source_towards(ip) == Some(ip)
}

/// Connecting a UDP socket sends nothing; it only asks the routing table.
fn source_towards(ip: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((ip, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(address: &str, doors: &[&str]) -> bool {
        let parse = |text: &str| text.parse::<SocketAddr>().expect("an address");
        is_own(parse(address), &doors.iter().map(|door| parse(door)).collect::<Vec<_>>())
    }

    #[test]
    fn every_way_to_our_port_on_this_machine_is_our_door() {
        for address in ["127.0.0.1:1935", "127.3.2.1:1935", "[::1]:1935", "0.0.0.0:1935", "[::]:1935", "[::ffff:127.0.0.1]:1935"]
        {
            assert!(own(address, &["0.0.0.0:1935", "[::]:1935"]), "{address}");
            assert!(own(address, &["[::]:1935"]), "{address}");
        }
    }

    #[test]
    fn an_address_of_an_interface_is_local_too() {
        // Whatever source the kernel takes towards the world is an address of ours; without a network there is none.
        if let Some(ip) = source_towards(Ipv4Addr::new(198, 51, 100, 1).into()) {
            assert!(own(&format!("{ip}:1935"), &["0.0.0.0:1935"]));
        }
    }

    #[test]
    fn another_port_another_door_and_another_machine_are_not_ours() {
        assert!(!own("127.0.0.1:1936", &["0.0.0.0:1935"]));
        assert!(!own("127.0.0.1:1935", &["10.0.0.1:1935"]), "an origin on loopback beside a relay on another address");
        assert!(!own("198.51.100.1:1935", &["0.0.0.0:1935"]));
        assert!(!own("127.0.0.1:1935", &[]));
    }
}
