//! Client assertions: signed statements by which the application authenticates.
//!
//! There are two kinds, distinguished by their issuer: the application itself, which signs with its certificate, or the
//! trusted issuer of its federated credential, which signs with keys of its own.
//!
//! # Invariants
//!
//! - A claim counts only after the signature was verified.
//! - Each refusal is the one of Entra ID.

use super::Tenant;
use super::errors::{EntraError, Reason};
use super::jwt::{Claims, Jwt};
use super::{client_certificate, issuer, token};

impl Tenant {
    /// Checks that an assertion authenticates the application.
    pub(super) async fn check_assertion(&self, text: &[u8]) -> Result<(), EntraError> {
        let jwt = Jwt::parse(text).ok_or(Reason::MalformedAssertion)?;
        if self.is_application(&jwt.claims.iss) {
            self.check_certificate_assertion(jwt)
        } else {
            self.check_federated_assertion(jwt).await
        }
    }

    async fn check_federated_assertion(&self, jwt: Jwt<'_>) -> Result<(), EntraError> {
        if jwt.claims.iss != self.issuer.issuer {
            return Err(Reason::WrongIssuer.with(&jwt.claims.iss));
        }
        let signed = self.issuer.check_signature(&jwt).await;
        signed.map_err(|reason| match reason {
            issuer::Unsigned::KeyNotFound => Reason::KeyNotFound,
            issuer::Unsigned::Signature => Reason::BadSignature,
            issuer::Unsigned::KeysUnavailable => Reason::IssuerUnavailable,
        })?;
        check_time(&jwt.claims)?;
        let audience = jwt.claims.audience();
        if audience != token::EXCHANGE_AUDIENCE {
            return Err(Reason::WrongAudience.with(audience));
        }
        if jwt.claims.sub != self.issuer.subject {
            return Err(Reason::WrongSubject.with(&jwt.claims.sub));
        }
        Ok(())
    }

    fn check_certificate_assertion(&self, jwt: Jwt<'_>) -> Result<(), EntraError> {
        let signed = client_certificate::check_signature(self.certificate.as_ref(), &jwt);
        signed.map_err(|reason| match reason {
            client_certificate::Unsigned::KeyNotFound { thumbprint } => {
                EntraError::certificate_not_found(
                    thumbprint.as_deref(),
                    &self.application.client_id,
                )
            }
            client_certificate::Unsigned::Signature => Reason::BadSignature.into(),
        })?;
        check_time(&jwt.claims)?;
        // The token endpoint or, in older SDKs, the tenant.
        let tenant = format!("{}{}", self.authority, self.signer.tenant);
        let audience = jwt.claims.audience();
        let known = ["/oauth2/v2.0/token", "/v2.0", ""];
        if !known
            .iter()
            .any(|path| audience.eq_ignore_ascii_case(&format!("{tenant}{path}")))
        {
            return Err(Reason::WrongRealm.into());
        }
        if !self.is_application(&jwt.claims.sub) {
            return Err(Reason::WrongApplication.into());
        }
        Ok(())
    }

    fn is_application(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case(&self.application.client_id)
    }
}

fn check_time(claims: &Claims) -> Result<(), EntraError> {
    if claims.in_time(token::now()) {
        return Ok(());
    }
    Err(EntraError::not_in_time(claims.nbf, claims.exp))
}
