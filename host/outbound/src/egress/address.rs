//! Which addresses may be reached: global unicast, and what the operator opens.
//!
//! The networks are those of the IANA registries of special-purpose addresses
//! (<https://www.iana.org/assignments/iana-ipv4-special-registry>, <https://www.iana.org/assignments/iana-ipv6-special-registry>;
//! RFC 6890 with RFC 8190) that are not globally reachable. Where an IPv6 address leads to an IPv4 one, that one is judged too.

use super::PrivateNetwork;
use super::own::Own;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(a: u16, b: u16, c: u16, bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), bits)
}

/// Not global.
const SPECIAL_V4: [Ipv4Net; 17] = [
    v4(0, 0, 0, 0, 8),          // this network (RFC 791)
    v4(10, 0, 0, 0, 8),         // private (RFC 1918)
    v4(100, 64, 0, 0, 10),      // shared by a carrier's customers (RFC 6598); some clouds' metadata
    v4(127, 0, 0, 0, 8),        // loopback (RFC 1122)
    v4(168, 63, 129, 16, 32),   // in no registry: the agent of the host below a virtual machine, in Azure
    v4(169, 254, 0, 0, 16),     // link-local (RFC 3927), and with it most clouds' metadata
    v4(172, 16, 0, 0, 12),      // private (RFC 1918)
    v4(192, 0, 0, 0, 24),       // protocol assignments (RFC 6890)
    v4(192, 0, 2, 0, 24),       // documentation (RFC 5737)
    v4(192, 88, 99, 0, 24),     // 6to4 relays (RFC 7526)
    v4(192, 168, 0, 0, 16),     // private (RFC 1918)
    v4(198, 18, 0, 0, 15),      // benchmarks (RFC 2544)
    v4(198, 51, 100, 0, 24),    // documentation (RFC 5737)
    v4(203, 0, 113, 0, 24),     // documentation (RFC 5737)
    v4(224, 0, 0, 0, 4),        // multicast (RFC 5771)
    v4(240, 0, 0, 0, 4),        // reserved (RFC 1112)
    v4(255, 255, 255, 255, 32), // broadcast (RFC 8190)
];

/// All global unicast addresses that were ever given out are in here (RFC 4291). So loopback, unspecified, unique-local, link-local,
/// site-local, multicast, discard-only, SRv6 and IPv4-compatible ones need no mention.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// Not global, and within [`GLOBAL_V6`].
const SPECIAL_V6: [Ipv6Net; 3] = [
    v6(0x2001, 0, 0, 23), // protocol assignments (RFC 2928), with ORCHID and benchmarks; Teredo apart
    v6(0x2001, 0xdb8, 0, 32), // documentation (RFC 3849)
    v6(0x3fff, 0, 0, 20), // documentation (RFC 9637)
];

const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96); // RFC 4291
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96); // RFC 6052. 64:ff9b:1::/48 (RFC 8215) is for local use, so it is not global.
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16); // RFC 3056
const TEREDO: Ipv6Net = v6(0x2001, 0, 0, 32); // RFC 4380

/// Whether a guest may be connected to an address: it is global and not this host's, or the operator opened it, as it is written or
/// where it leads to.
pub(super) fn is_reachable(address: IpAddr, port: u16, private: &[PrivateNetwork], own: &Own) -> bool {
    if is_opened(address, port, private) {
        return true;
    }
    if own.has(address) {
        return false;
    }
    let is_good = |v4: &Ipv4Addr| {
        let address = IpAddr::V4(*v4);
        is_opened(address, port, private) || (is_global_v4(*v4) && !own.has(address))
    };
    match address {
        IpAddr::V4(address) => is_good(&address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => inner.iter().all(is_good),
            None => GLOBAL_V6.contains(&address) && !SPECIAL_V6.iter().any(|net| net.contains(&address)),
        },
    }
}

/// Whether an address leads to this host or to one of its links. From another machine it leads elsewhere.
pub(super) fn is_near(address: IpAddr, own: &Own) -> bool {
    let is_near = |address: IpAddr| {
        own.has(address)
            || match address {
                IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
            }
    };
    let inner = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded(v6),
    };
    is_near(address) || inner.is_some_and(|inner| inner.into_iter().any(|v4| is_near(v4.into())))
}

/// Whether the operator opened an address, as it is written or as the IPv4 address that it is another spelling of.
pub(super) fn is_opened(address: IpAddr, port: u16, private: &[PrivateNetwork]) -> bool {
    let holds = |net: &IpNet, address: &IpAddr| net.contains(address);
    private
        .iter()
        .filter(|opened| opened.port.is_none_or(|own| own == port))
        .any(|opened| holds(&opened.network, &address) || holds(&opened.network, &address.to_canonical()))
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    !SPECIAL_V4.iter().any(|net| net.contains(&address))
}

/// The IPv4 addresses that packets for an IPv6 address go to.
fn embedded(address: Ipv6Addr) -> Option<Vec<Ipv4Addr>> {
    let octets = address.octets();
    let at = |i: usize| Ipv4Addr::new(octets[i], octets[i + 1], octets[i + 2], octets[i + 3]);
    if MAPPED.contains(&address) || NAT64.contains(&address) {
        Some(vec![at(12)])
    } else if SIX_TO_FOUR.contains(&address) {
        Some(vec![at(2)])
    } else if TEREDO.contains(&address) {
        // Its server, and its client with every bit turned over.
        Some(vec![at(4), Ipv4Addr::from_bits(!at(12).to_bits())])
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reachable(address: &str) -> bool {
        is_reachable(address.parse().unwrap(), 443, &[], &Own::of(&[]))
    }

    fn opened(network: &str, port: Option<u16>) -> Vec<PrivateNetwork> {
        vec![PrivateNetwork { network: network.parse().unwrap(), port }]
    }

    #[test]
    fn global_unicast_addresses_are_reachable() {
        let global = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2606:4700::1111",
            "2001:200::1",
            "2001:4860::8888",
            "2a00:1450::1",
            "3ffe::1",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
            "2002:808:808::1",
            "2001:0:808:808::fefe:fefe",
        ];
        for address in global {
            assert!(reachable(address), "{address}");
        }
    }

    #[test]
    fn every_other_address_is_not() {
        let special = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "64:ff9b:1:fffe::1",
            "100::1",
            "100:0:0:1::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "2002:a00:1::1",
            "2001:0:7f00:1::fefe:fefe",
            "2001:0:808:808::80ff:fffe",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
            "1fff::1",
        ];
        for address in special {
            assert!(!reachable(address), "{address}");
        }
    }

    #[test]
    fn address_of_an_interface_is_reachable_only_if_opened() {
        let own = Own::of(&["8.8.8.8", "2606:4700::1111"]);
        let named = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"];
        for address in named.map(|address| address.parse().unwrap()) {
            assert!(!is_reachable(address, 443, &[], &own), "{address}");
        }
        assert!(is_reachable("8.8.8.9".parse().unwrap(), 443, &[], &own));
        let one = opened("8.8.8.8/32", Some(443));
        assert!(is_reachable(named[0].parse().unwrap(), 443, &one, &own));
        assert!(is_reachable(named[3].parse().unwrap(), 443, &one, &own));
        assert!(!is_reachable(named[0].parse().unwrap(), 80, &one, &own));
        assert!(!is_reachable(named[1].parse().unwrap(), 443, &one, &own));
    }

    #[test]
    fn what_the_operator_opens_is_reachable_on_its_port() {
        let none = Own::of(&[]);
        let ten = opened("10.0.0.0/8", None);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::1"] {
            assert!(is_reachable(address.parse().unwrap(), 80, &ten, &none), "{address}");
        }
        for address in ["11.0.0.0", "8.8.8.8"] {
            assert!(is_reachable(address.parse().unwrap(), 80, &ten, &none), "{address}");
        }
        for address in ["127.0.0.1", "::a01:203", "::ffff:127.0.0.1", "fc00::1"] {
            assert!(!is_reachable(address.parse().unwrap(), 80, &ten, &none), "{address}");
        }
        let one = opened("127.0.0.0/8", Some(8080));
        assert!(is_reachable("127.0.0.1".parse().unwrap(), 8080, &one, &none));
        assert!(!is_reachable("127.0.0.1".parse().unwrap(), 8081, &one, &none));
        assert!(is_reachable("fd00::1".parse().unwrap(), 1, &opened("fd00::/8", None), &none));
    }

    #[test]
    fn address_that_means_another_machine_elsewhere_is_near() {
        let own = Own::of(&["192.0.2.7"]);
        for near in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.1.2",
            "192.0.2.7",
            "::1",
            "::",
            "fe80::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
        ] {
            assert!(is_near(near.parse().unwrap(), &own), "{near}");
        }
        for far in ["10.0.0.1", "192.0.2.8", "fd00::1", "8.8.8.8", "::ffff:10.0.0.1"] {
            assert!(!is_near(far.parse().unwrap(), &own), "{far}");
        }
    }

    #[test]
    fn a_teredo_address_wants_its_server_and_its_client_global() {
        let none = Own::of(&[]);
        let ten = opened("10.0.0.0/8", None);
        let client_in_ten = "2001:0:808:808::f5ff:fffe".parse().unwrap();
        assert!(!is_reachable(client_in_ten, 80, &[], &none) && is_reachable(client_in_ten, 80, &ten, &none));
    }
}
