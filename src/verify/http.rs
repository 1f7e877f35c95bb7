//! The operator's side of the HTTP contract, which `docs/verification.md` specifies.

use super::sign::{MIN_KEY, SIGNATURE, TIMESTAMP, sign};
use super::{Challenge, Error, State, answer};
use k8s_openapi::jiff::Timestamp;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

pub struct Http {
    client: reqwest::Client,
    url: reqwest::Url,
    key: SecretString,
}

impl Http {
    pub fn new(client: reqwest::Client, url: &str, key: SecretString) -> Result<Self, Error> {
        if key.expose_secret().len() < MIN_KEY {
            return Err(Error::Spec(format!(
                "the key of http.signingSecretRef has fewer than {MIN_KEY} characters and can be \
                 guessed; use a longer one"
            )));
        }
        let url = reqwest::Url::parse(url).map_err(|e| Error::Spec(format!("http.url: {e}")))?;
        Ok(Self { client, url, key })
    }

    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> reqwest::RequestBuilder {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        let now = Timestamp::now().as_second();
        let signature = sign(&self.key, now, method.as_str(), url.path(), &body);
        let request = self
            .client
            .request(method, url)
            .header(TIMESTAMP, now)
            .header(SIGNATURE, signature);
        if body.is_empty() {
            request
        } else {
            request
                .header("content-type", "application/json")
                .body(body)
        }
    }

    pub async fn start(&self, challenge: &Challenge) -> Result<State, Error> {
        let body = serde_json::to_vec(challenge).map_err(|e| Error::Answer(e.to_string()))?;
        let request = self
            .request(Method::POST, "/challenges", body)
            .header("idempotency-key", &challenge.challenge_id);
        state_of(&answer(request).await?, &challenge.challenge_id)
    }

    pub async fn state(&self, challenge_id: &str) -> Result<State, Error> {
        state_of(
            &answer(self.request(
                Method::GET,
                &format!("/challenges/{challenge_id}"),
                Vec::new(),
            ))
            .await?,
            challenge_id,
        )
    }

    pub async fn check(&self) -> Result<(), Error> {
        answer(self.request(Method::GET, "/health", Vec::new()))
            .await
            .map(|_| ())
    }
}

/// The state in a response, if it is about this challenge.
fn state_of(answer: &Value, challenge_id: &str) -> Result<State, Error> {
    if answer.get("challengeId").and_then(Value::as_str) != Some(challenge_id) {
        return Err(Error::Answer("it is about another challenge".into()));
    }
    let state = answer.get("state").cloned().unwrap_or_default();
    serde_json::from_value(state).map_err(|_| {
        Error::Answer("its state is not one of pending, verified, denied, expired, failed".into())
    })
}
