//! A certificate authority for one test, and the server certificate that it signed.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use super::server::ServerBuilder;

/// PEM files for `127.0.0.1` and `localhost`; removed on drop, so it must outlive restarts of its server.
#[derive(Debug)]
pub struct TlsFiles {
    dir: TempDir,
}

impl TlsFiles {
    pub fn generate() -> Self {
        let ca_key = KeyPair::generate().expect("a key can be made");
        let mut ca = CertificateParams::new(Vec::new()).expect("no names, none of them wrong");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(DnType::CommonName, "test authority");
        let ca = CertifiedIssuer::self_signed(ca, ca_key).expect("an authority can sign itself");

        let key = KeyPair::generate().expect("a key can be made");
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut server = CertificateParams::new(names).expect("an address and a name");
        server.distinguished_name.push(DnType::CommonName, "test server");
        let certificate = server.signed_by(&key, &ca).expect("the authority can sign");

        let dir = TempDir::with_prefix("tls-").expect("a temporary directory can be made");
        let files = Self { dir };
        write(&files.ca(), &ca.pem());
        write(&files.certificate(), &certificate.pem());
        write(&files.key(), &key.serialize_pem());
        files
    }

    /// The authority that a client has to trust.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("server.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.path().join("server-key.pem")
    }
}

impl ServerBuilder {
    /// The server's port speaks TLS only, and asks clients for no certificate.
    #[must_use]
    pub fn tls(self, files: &TlsFiles) -> Self {
        self.speaking_tls()
            .path_arg("tls-ca-cert-file", &files.ca())
            .path_arg("tls-cert-file", &files.certificate())
            .path_arg("tls-key-file", &files.key())
            .arg("tls-auth-clients", "no")
    }
}

fn write(path: &Path, pem: &str) {
    std::fs::write(path, pem).expect("our own directory can be written");
}
