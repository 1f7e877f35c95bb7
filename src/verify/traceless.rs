//! Traceless. **Its wire format is not public**; what is public is that it takes
//! the requester's work e-mail, an organisation UUID and a push method, signs with
//! an API signing secret, and is polled every few seconds. Everything else here is
//! an assumption, kept in this file so that it can be corrected in one place:
//!
//! 1. `POST {endpoint}/organizations/{uuid}/verifications` starts a push; the body is
//!    `{"externalId", "email", "method", "reason"}`, where `method` is
//!    `microsoft_authenticator` or `duo_push`.
//! 2. A repeated `externalId` does not start a second push.
//! 3. `GET {endpoint}/organizations/{uuid}/verifications/{externalId}` returns
//!    `{"externalId", "status"}`.
//! 4. `status` is `pending`, `approved`, `denied`, `timeout`, or anything else for a failure.
//! 5. Requests are signed as in [`super::sign`].
//! 6. `GET {endpoint}/organizations/{uuid}` returns 200 if UUID and signature are correct.

use super::sign::{SIGNATURE, TIMESTAMP, sign};
use super::{Challenge, Error, State, answer};
use crate::api::verification::PushMethod;
use k8s_openapi::jiff::Timestamp;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

pub struct Traceless {
    client: reqwest::Client,
    endpoint: String,
    method: PushMethod,
    key: SecretString,
    organization: SecretString,
}

impl Traceless {
    pub fn new(
        client: reqwest::Client,
        endpoint: &str,
        method: PushMethod,
        key: SecretString,
        organization: SecretString,
    ) -> Self {
        Self {
            client,
            endpoint: endpoint.to_string(),
            method,
            key,
            organization,
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<reqwest::RequestBuilder, Error> {
        let url = reqwest::Url::parse(&format!(
            "{}/organizations/{}{path}",
            self.endpoint,
            self.organization.expose_secret()
        ))
        .map_err(|e| Error::Spec(format!("traceless.endpoint: {e}")))?;
        let now = Timestamp::now().as_second();
        let signature = sign(&self.key, now, method.as_str(), url.path(), &body);
        let request = self
            .client
            .request(method, url)
            .header(TIMESTAMP, now)
            .header(SIGNATURE, signature);
        Ok(if body.is_empty() {
            request
        } else {
            request
                .header("content-type", "application/json")
                .body(body)
        })
    }

    pub async fn start(&self, challenge: &Challenge) -> Result<State, Error> {
        let method = match self.method {
            PushMethod::MicrosoftAuthenticator => "microsoft_authenticator",
            PushMethod::DuoPush => "duo_push",
        };
        let body = json!({"externalId": challenge.challenge_id, "email": challenge.email,
            "method": method, "reason": challenge.reason});
        state_of(
            &answer(self.request(
                Method::POST,
                "/verifications",
                body.to_string().into_bytes(),
            )?)
            .await?,
            &challenge.challenge_id,
        )
    }

    pub async fn state(&self, challenge_id: &str) -> Result<State, Error> {
        let request = self.request(
            Method::GET,
            &format!("/verifications/{challenge_id}"),
            Vec::new(),
        )?;
        state_of(&answer(request).await?, challenge_id)
    }

    pub async fn check(&self) -> Result<(), Error> {
        answer(self.request(Method::GET, "", Vec::new())?)
            .await
            .map(|_| ())
    }
}

fn state_of(answer: &Value, challenge_id: &str) -> Result<State, Error> {
    if answer.get("externalId").and_then(Value::as_str) != Some(challenge_id) {
        return Err(Error::Answer("it is about another verification".into()));
    }
    Ok(
        match answer
            .get("status")
            .and_then(Value::as_str)
            .unwrap_or_default()
        {
            "pending" => State::Pending,
            "approved" => State::Verified,
            "denied" => State::Denied,
            "timeout" => State::Expired,
            _ => State::Failed,
        },
    )
}
