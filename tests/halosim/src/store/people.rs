//! Writing clients, sites, users and the other plain records.

use super::{No, Object, Outcome, Store, number, object, text};
use serde_json::json;

impl Store {
    /// Creates or updates a record of a plain kind.
    pub fn write_record(&mut self, kind: &'static str, input: &Object) -> Outcome<Object> {
        let existing = match number(input, "id").filter(|id| *id > 0) {
            Some(id) => Some(
                self.get(kind, id)
                    .map(|o| o.into_owned())
                    .ok_or(No::NotFound)?,
            ),
            None => None,
        };
        let is_new = existing.is_none();
        let mut record = existing.unwrap_or_default();
        record.extend(
            input
                .iter()
                .filter(|(key, _)| *key != "id" && !key.starts_with('_'))
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        match kind {
            "client" => self.client(&mut record)?,
            "site" => self.site(&mut record)?,
            "users" => self.user(&mut record)?,
            "kbarticle" if text(&record, "name").is_empty() => {
                return Err(No::BadRequest("A Title must be entered for this Article"));
            }
            _ => {}
        }
        if !is_new {
            record.insert("id".into(), number(input, "id").into());
        } else {
            record.entry("inactive").or_insert(false.into());
            if kind == "kbarticle" {
                // Without entries an article is for everybody.
                for list in ["kbentryclientaccess", "kbentrytoplevelaccess"] {
                    record.entry(list).or_insert(json!([]));
                }
            }
        }
        let id = self.put(kind, record);
        if kind == "client" && is_new {
            // A client comes with its first site.
            let name = self
                .get("client", id)
                .map(|c| text(&c, "name").to_string())
                .unwrap_or_default();
            let site = self.put("site", object(json!({"name": "Main", "client_id": id, "client_name": name, "inactive": false})));
            if let Some(client) = self.get_mut("client", id) {
                client.insert("main_site_id".into(), site.into());
                client.insert("main_site_name".into(), "Main".into());
            }
        }
        Ok(self
            .get(kind, id)
            .map(|o| o.into_owned())
            .unwrap_or_default())
    }

    fn client(&self, client: &mut Object) -> Outcome<()> {
        if text(client, "name").trim().is_empty() {
            return Err(No::BadRequest("A Name must be entered for this Client"));
        }
        let own = number(client, "id");
        if self
            .named("client", text(client, "name"))
            .is_some_and(|id| Some(id) != own)
        {
            return Err(No::BadRequest("A Client with this Name already exists"));
        }
        client.entry("toplevel_id").or_insert(1.into());
        Ok(())
    }

    fn site(&self, site: &mut Object) -> Outcome<()> {
        let client = number(site, "client_id")
            .and_then(|id| self.get("client", id))
            .ok_or(No::BadRequest("Please select a valid Client"))?;
        if text(site, "name").trim().is_empty() {
            return Err(No::BadRequest("A Name must be entered for this Site"));
        }
        site.insert("client_id".into(), number(site, "client_id").into());
        site.insert("client_name".into(), text(&client, "name").into());
        site.insert(
            "clientsite_name".into(),
            format!("{}/{}", text(&client, "name"), text(site, "name")).into(),
        );
        Ok(())
    }

    /// A user belongs to a site, and through it to a client.
    fn user(&self, user: &mut Object) -> Outcome<()> {
        if text(user, "name").trim().is_empty() {
            let name = format!("{} {}", text(user, "firstname"), text(user, "surname"))
                .trim()
                .to_string();
            if name.is_empty() {
                return Err(No::BadRequest("A Name must be entered for this User"));
            }
            user.insert("name".into(), name.into());
        }
        let site = number(user, "site_id").or_else(|| {
            let client = number(user, "client_id")
                .or_else(|| self.named("client", text(user, "client_name")))?;
            number(&*self.get("client", client)?, "main_site_id")
        });
        let site = site
            .and_then(|id| self.get("site", id))
            .ok_or(No::BadRequest("Please select a valid Site"))?;
        for (to, from) in [("site_id", "id"), ("client_id", "client_id")] {
            user.insert(to.into(), number(&site, from).into());
        }
        user.insert("site_name".into(), text(&site, "name").into());
        user.insert("client_name".into(), text(&site, "client_name").into());
        Ok(())
    }
}
