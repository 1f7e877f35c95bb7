//! The simulator's own CA and a server certificate from it.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

pub struct Tls {
    pub ca_pem: String,
    pub ca_key: String,
    pub server: Arc<rustls::ServerConfig>,
}

/// A server certificate for these names, from the CA given (certificate and key in PEM) or
/// a new one.
pub fn issue(
    names: &[String],
    ca: Option<(String, String)>,
) -> Result<Tls, Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "halosim CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let (ca_pem, key) = match ca {
        Some((pem, key)) => (pem, KeyPair::from_pem(&key)?),
        None => {
            let key = KeyPair::generate()?;
            (params.self_signed(&key)?.pem(), key)
        }
    };
    let ca_key = key.serialize_pem();
    let issuer = Issuer::new(params, key);
    let mut all: Vec<String> = vec!["localhost".into(), "127.0.0.1".into()];
    all.extend(names.iter().cloned());
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(all)?.signed_by(&key, &issuer)?;
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let mut server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Tls {
        ca_pem,
        ca_key,
        server: Arc::new(server),
    })
}
