//! HaloPSA's pages in a real Chromium, played by both roles while the operator works.
//!
//! With `SCREENSHOTS=folder` pictures are written there (`make pictures`).

use crate::harness::{ACME, Harness, eventually};
use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A separate network for the browsers: they abort a page load whenever a network link
/// changes, and the cluster's Pods come and go. It lives as long as its holder;
/// `ip netns` would mount /run/netns again, above the mounts of those Pods.
struct Network {
    holder: Child,
    /// This side's address, and the browsers'.
    here: String,
    there: String,
}

impl Network {
    fn new() -> Self {
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "3600"])
            .spawn()
            .expect("unshare, of util-linux");
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let own = of("self");
        while of(&holder.id().to_string()).is_none_or(|namespace| Some(namespace) == own) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let number: u16 = rand::random();
        // From the range reserved for network tests.
        let [a, b] = number.to_be_bytes();
        let base = b & 0xfc;
        let network = Self {
            here: format!("198.18.{a}.{}", base + 1),
            there: format!("198.18.{a}.{}", base + 2),
            holder,
        };
        let (near, far) = (format!("hs{number:04x}"), format!("hs{number:04x}b"));
        let (pid, inside) = (network.holder.id(), network.inside());
        run(&format!("ip link add {near} type veth peer name {far}"));
        run(&format!("ip link set {far} netns {pid}"));
        run(&format!("ip address add {}/30 dev {near}", network.here));
        run(&format!("ip link set {near} up"));
        run(&format!(
            "{inside} ip address add {}/30 dev {far}",
            network.there
        ));
        // No address may appear later by itself.
        run(&format!("{inside} ip link set {far} addrgenmode none"));
        run(&format!("{inside} ip link set {far} up"));
        run(&format!("{inside} ip link set lo up"));
        network
    }

    /// The prefix of a command that runs there.
    fn inside(&self) -> String {
        format!("nsenter --net=/proc/{}/ns/net", self.holder.id())
    }

    /// A port on this side that forwards to this one on loopback.
    async fn forward(&self, to: std::net::SocketAddr) -> (String, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind((self.here.as_str(), 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(to).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        (address, task)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap())
        .args(words)
        .status()
        .unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(
        status.success(),
        "{command}: {status}; the browser test needs root"
    );
}

/// A chromedriver; its browsers end with it.
struct Driver {
    process: Child,
    url: String,
    halo: String,
    forward: tokio::task::JoinHandle<()>,
    _network: Network,
}

impl Driver {
    async fn start(halo: &str) -> Self {
        let network = Network::new();
        let to = halo.trim_start_matches("https://").parse().unwrap();
        let (address, forward) = network.forward(to).await;
        let process = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", network.holder.id()))
            .args(["chromedriver", "--port=9515", "--allowed-ips="])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsenter, of util-linux");
        let url = format!("http://{}:9515", network.there);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        eventually(
            "chromedriver: tests/cluster/cluster tools installs it",
            || async {
                http.get(format!("{url}/status"))
                    .send()
                    .await
                    .ok()
                    .filter(|r| r.status().is_success())
            },
        )
        .await;
        Self {
            process,
            url,
            halo: format!("https://{address}"),
            forward,
            _network: network,
        }
    }

    async fn browser(&self) -> Person {
        // The simulator has its own CA; that the operator checks it is tested elsewhere.
        let capabilities = json!({
            "browserName": "chrome", "acceptInsecureCerts": true,
            "goog:chromeOptions": {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,960", "--no-proxy-server"]},
            "timeouts": {"pageLoad": 30_000, "script": 10_000, "implicit": 0},
        });
        let Value::Object(capabilities) = capabilities else {
            unreachable!()
        };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&self.url)
            .await
            .expect("a browser");
        Person {
            client,
            halo: self.halo.clone(),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.forward.abort();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A human with a browser.
struct Person {
    client: Client,
    halo: String,
}

impl Person {
    async fn open(&self, path: &str) {
        self.client
            .goto(&format!("{}{path}", self.halo))
            .await
            .unwrap();
    }

    async fn find(&self, css: &str) -> Element {
        self.client
            .wait()
            .at_most(Duration::from_secs(30))
            .for_element(Locator::Css(css))
            .await
            .unwrap_or_else(|e| panic!("{css}: {e}"))
    }

    /// Clicks; if the page is just being replaced, on the new one.
    async fn click(&self, locator: Locator<'_>) {
        for _ in 0..20 {
            let found = self
                .client
                .wait()
                .at_most(Duration::from_secs(30))
                .for_element(locator)
                .await;
            match found
                .unwrap_or_else(|e| panic!("{locator:?}: {e}"))
                .click()
                .await
            {
                Ok(()) => return,
                Err(error) if error.is_stale_element_reference() => {
                    tokio::time::sleep(Duration::from_millis(100)).await
                }
                Err(error) => panic!("{locator:?}: {error}"),
            }
        }
        panic!("{locator:?}: replaced on every click");
    }

    async fn link(&self, text: &str) {
        self.click(Locator::LinkText(text)).await;
    }

    async fn press(&self, button: &str) {
        self.click(Locator::XPath(&format!(
            "//button[normalize-space()='{button}']"
        )))
        .await;
    }

    async fn fill(&self, css: &str, text: &str) {
        self.find(css).await.send_keys(text).await.unwrap();
    }

    async fn text(&self) -> String {
        let text = self
            .script("return (document.querySelector('main') ?? document.documentElement).innerText")
            .await;
        text.as_str().unwrap_or_default().to_string()
    }

    /// Waits until the page shows it by itself.
    async fn sees(&self, text: &str) {
        for _ in 0..300 {
            if self.text().await.contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!(
            "{} never showed {text:?}: {}",
            self.client.current_url().await.unwrap(),
            self.text().await
        );
    }

    async fn sign_in(&self, name: &str) {
        self.open("/").await;
        self.fill("input[name=search]", name).await;
        self.press("Search").await;
        self.click(Locator::XPath(&format!(
            "//form[@action='/signin']//button[strong='{name}']"
        )))
        .await;
        self.find("header .who").await;
    }

    async fn script(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("SCREENSHOTS") else {
            return;
        };
        let png = self.client.screenshot().await.unwrap();
        std::fs::write(
            std::path::Path::new(&folder).join(format!("{name}.png")),
            png,
        )
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requester_and_a_technician_work_a_ticket_in_their_browsers() {
    let mut harness = Harness::start("browser").await;
    harness.execute(&[ACME], json!({})).await;
    harness.run_agent("acme-dental-group").await;
    let driver = Driver::start(&harness.sim.url).await;
    let (kim, dana) = (driver.browser().await, driver.browser().await);
    // The browsers are closed whatever happens.
    let windows = (kim.client.clone(), dana.client.clone());
    let played = tokio::spawn(play(kim, dana)).await;
    let _ = windows.0.close().await;
    let _ = windows.1.close().await;
    drop(driver);
    if let Err(failed) = played {
        std::panic::resume_unwind(failed.into_panic());
    }
    harness.stop().await;
}

async fn play(kim: Person, dana: Person) {
    let path = requester_opens_a_ticket(&kim).await;
    technician_takes_it(&dana, &kim).await;
    technician_approves_by_keyboard(&dana).await;
    both_reply(&kim, &dana).await;
    requester_sees_no_configuration(&kim).await;
    technician_configures(&dana).await;
    technician_signs_out(&dana, &path).await;
}

/// With markup in it that has to stay text. Returns the ticket's path.
async fn requester_opens_a_ticket(kim: &Person) -> String {
    kim.sign_in("Kim Lee").await;
    kim.link("New Ticket").await;
    kim.fill("input[name=summary]", "Label printer is offline")
        .await;
    let details = "It shows offline since this morning. <script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>";
    kim.fill("textarea[name=details]", details).await;
    kim.press("Create ticket").await;
    kim.sees("<script>window.hacked = 1</script>").await;
    assert_eq!(kim.script("return window.hacked").await, Value::Null);
    kim.client.current_url().await.unwrap().path().to_string()
}

/// Finds it, assigns it to herself, and sees the agent's notes arrive.
async fn technician_takes_it(dana: &Person, kim: &Person) {
    dana.open("/tickets").await;
    assert!(
        dana.client.current_url().await.unwrap().path() == "/signin",
        "nobody is signed in"
    );
    dana.sign_in("Dana Novak").await;
    dana.fill("input[name=search]", "label printer").await;
    dana.press("Filter").await;
    dana.picture("tickets").await;
    dana.link("Label printer is offline").await;
    dana.sees("Diagnosis and plan").await;
    dana.find("select[name=agent_id]")
        .await
        .select_by_label("Dana Novak")
        .await
        .unwrap();
    dana.press("Save").await;
    dana.sees("Assigned to Dana Novak").await;
    dana.sees("approval needed").await;
    assert_eq!(dana.script("return window.hacked").await, Value::Null);
    assert_eq!(
        dana.script("return document.querySelectorAll('.thread li.private .tag.internal').length")
            .await,
        3
    );
    dana.picture("ticket-agent").await;
    assert!(
        !kim.text().await.contains("Diagnosis and plan"),
        "the requester does not see internal notes"
    );
}

/// The skip link comes first; Enter opens a note and sends it.
async fn technician_approves_by_keyboard(dana: &Person) {
    dana.find("body")
        .await
        .send_keys(&Key::Tab.to_string())
        .await
        .unwrap();
    assert_eq!(
        dana.client
            .active_element()
            .await
            .unwrap()
            .text()
            .await
            .unwrap(),
        "Skip to content"
    );
    dana.find(".act.private summary")
        .await
        .send_keys(&Key::Enter.to_string())
        .await
        .unwrap();
    let keys = format!("Approved, go ahead.{}{}", Key::Tab, Key::Enter);
    dana.fill(".act.private textarea", &keys).await;
    dana.sees("All approved steps are done").await;
}

/// The agent's reply reaches the requester, who answers; nothing internal does.
async fn both_reply(kim: &Person, dana: &Person) {
    kim.sees("Email User").await;
    kim.click(Locator::Css(".act summary")).await;
    kim.fill(
        ".act textarea[name=note]",
        "It prints again, thank you! <b>:-)</b>",
    )
    .await;
    kim.press("Send").await;
    kim.sees("It prints again, thank you! <b>:-)</b>").await;
    kim.picture("ticket-user").await;
    let shown = kim.text().await;
    assert!(
        !shown.contains("Diagnosis")
            && !shown.contains("approval needed")
            && !shown.contains("go ahead"),
        "{shown}"
    );
    dana.sees("It prints again, thank you! <b>:-)</b>").await;
    dana.click(Locator::Css(".act summary")).await;
    dana.fill(".act[open] textarea", "Glad to hear it.").await;
    dana.press("Send reply").await;
    kim.sees("Glad to hear it.").await;
}

async fn requester_sees_no_configuration(kim: &Person) {
    kim.open("/config/webhooks").await;
    kim.sees("Only agents see this page").await;
    kim.open("/tickets/4001").await;
    kim.sees("Not found").await;
}

async fn technician_configures(dana: &Person) {
    dana.link("Webhooks").await;
    dana.picture("webhooks").await;
    dana.click(Locator::Css("main tbody a")).await;
    dana.link("Deliveries").await;
    dana.sees("Succeeded").await;
    dana.click(Locator::Css("details.delivery summary")).await;
    let delivered = dana.text().await;
    assert!(
        delivered.contains("\"object_id\"")
            && delivered.contains("authorization: ***")
            && delivered.contains("HTTP 20"),
        "{delivered}"
    );
    dana.picture("deliveries").await;
    dana.link("Applications").await;
    dana.link("Rallied Agent").await;
    dana.picture("application").await;
    let ticked =
        "return [...document.querySelectorAll('input[name=scope]:checked')].map(i => i.value)";
    assert_eq!(
        dana.script(ticked).await,
        json!(["all:standard", "all:teams", "admin:webhooks"])
    );
    dana.click(Locator::Css("input[value='read:kb']")).await;
    dana.press("Save").await;
    assert_eq!(
        dana.script(ticked).await,
        json!(["all:standard", "all:teams", "admin:webhooks", "read:kb"])
    );
    dana.press("Regenerate secret").await;
    assert_eq!(dana.find("#secret").await.text().await.unwrap().len(), 73);
    dana.link("Agents").await;
    dana.sees("rallied@northwind-msp.example").await;
    dana.picture("agents").await;
}

async fn technician_signs_out(dana: &Person, path: &str) {
    dana.open(path).await;
    dana.press("Sign out").await;
    dana.open(path).await;
    assert_eq!(dana.client.current_url().await.unwrap().path(), "/signin");
    dana.picture("signin").await;
}
