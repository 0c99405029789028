//! The certificates of a server, as far as a person needs to see them.

use std::{fmt, net::IpAddr, time::Duration};

use jiff::Timestamp;
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// The certificate of a server, and the issuers of the certificates that came with it.
pub(super) struct Certificates {
    leaf: Certificate,
    issuers: Vec<String>,
    now: Timestamp,
}

impl Certificates {
    /// Reads a chain of certificates in DER; `None` if the first is missing or cannot be read.
    pub(super) fn read(chain: &[Vec<u8>]) -> Option<Self> {
        let issuer = |der: &Vec<u8>| match Certificate::from_der(der) {
            Ok(certificate) => certificate.tbs_certificate().issuer().to_string(),
            Err(_) => "unknown".to_owned(),
        };
        Some(Self {
            leaf: Certificate::from_der(chain.first()?).ok()?,
            issuers: chain.iter().map(issuer).collect(),
            now: Timestamp::now(),
        })
    }

    /// Returns the remaining validity by this machine's clock; zero once the certificate has expired.
    pub(super) fn expires_in(&self) -> Duration {
        let validity = self.leaf.tbs_certificate().validity();
        let expiry = validity.not_after.to_unix_duration();
        expiry.saturating_sub(self.now.as_duration().unsigned_abs())
    }

    /// Returns the names and addresses that the certificate is for.
    fn names(&self) -> String {
        let extension = self.leaf.tbs_certificate().get_extension();
        let Ok(Some((_, SubjectAltName(names)))) = extension else {
            return "no name".to_owned();
        };
        let names: Vec<_> = names.iter().filter_map(name).collect();
        if names.is_empty() {
            return "no name".to_owned();
        }
        names.join(", ")
    }
}

impl fmt::Display for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let validity = self.leaf.tbs_certificate().validity();
        write!(
            f,
            "certificate for {}, issued by {}, valid from {} to {}, expires in {} days by this machine's clock ({:.0})",
            self.names(),
            self.issuers.join(", by "),
            validity.not_before,
            validity.not_after,
            self.expires_in().as_secs() / (24 * 3600),
            self.now
        )
    }
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
