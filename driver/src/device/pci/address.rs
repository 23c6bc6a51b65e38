//! Where on the buses of this machine a PCI function is.

use std::fmt;

/// Where a PCI function is: domain, bus, device and function, as `lspci -D` prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl PciAddress {
    /// `DDDD:BB:DD.F`, or `BB:DD.F` in domain 0.
    #[must_use]
    pub fn parse(text: &str) -> Option<PciAddress> {
        let (rest, function) = text.rsplit_once('.')?;
        let (rest, device) = rest.rsplit_once(':')?;
        let (domain, bus) = rest.split_once(':').unwrap_or(("0000", rest));
        let address = PciAddress {
            // Bridges that are no PCI of the board, as VMD, have domains of five digits and more.
            domain: (4..=8).find_map(|digits| hex(domain, digits))?,
            bus: hex(bus, 2)? as u8,
            device: hex(device, 2)? as u8,
            function: hex(function, 1)? as u8,
        };
        (address.device < 32 && address.function < 8).then_some(address)
    }
}

/// A number of so many hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let is_hex = text.len() == digits && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PciAddress { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_lspci_prints() {
        let told = |text| PciAddress::parse(text).map(|address| address.to_string());
        assert_eq!(told("0000:01:00.0").as_deref(), Some("0000:01:00.0"));
        assert_eq!(told("65:00.1").as_deref(), Some("0000:65:00.1"));
        assert_eq!(told("10000:E1:1F.7").as_deref(), Some("10000:e1:1f.7"));
        let wrong = [
            "",
            "camera",
            "01:00",
            "01:20.0",
            "01:00.8",
            "1:00.0",
            "0000:01:00.0.0",
            "0:01:00.0",
            "+1:00.0",
            "0000:0000:01:00.0",
        ];
        assert_eq!(wrong.map(told), [const { None }; 10]);
    }
}
