//! The watches that controller, gateway and receiver need, wired once.

use super::guard::Unreadables;
use super::index::{ClientIndex, TicketIndex};
use super::namespaces::Namespaces;
use super::reflect::Reflector;
use crate::api::{
    HaloPSAConnection, ImportedClient, Ticket, ToolPolicy, ToolServer, VerificationProvider,
    Workflow,
};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Our objects in the cluster, as the watches last saw them.
#[derive(Clone)]
pub struct Stores {
    pub connections: Store<HaloPSAConnection>,
    pub clients: Store<ImportedClient>,
    pub tickets: Store<Ticket>,
    pub policies: Store<ToolPolicy>,
    pub servers: Store<ToolServer>,
    pub workflows: Store<Workflow>,
    pub providers: Store<VerificationProvider>,
    /// Objects that exist and are in no store, because they cannot be read.
    pub unreadables: Arc<Unreadables>,
    filled: watch::Receiver<bool>,
}

impl Stores {
    /// Waits until every store is filled. Before that, an object that is merely not
    /// known yet would be taken for deleted.
    pub async fn filled(&self) {
        // Only the end of the process drops the sender, and then nothing is decided.
        if self
            .filled
            .clone()
            .wait_for(|filled| *filled)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }
}

pub struct Watches {
    pub connections: Reflector<HaloPSAConnection>,
    pub clients: Reflector<ImportedClient>,
    pub tickets: Reflector<Ticket>,
    pub policies: Reflector<ToolPolicy>,
    pub servers: Reflector<ToolServer>,
    pub workflows: Reflector<Workflow>,
    pub providers: Reflector<VerificationProvider>,
    pub ticket_index: Arc<TicketIndex>,
    pub client_index: Arc<ClientIndex>,
    unreadables: Arc<Unreadables>,
    /// Policies, ToolServers and Workflows are watched, too.
    with_rules: bool,
    filled: watch::Sender<bool>,
    to_fill: Vec<watch::Receiver<bool>>,
    tasks: JoinSet<()>,
}

type Hook<T> = Box<dyn Fn(&T) + Send + Sync>;

/// What else a process does when a watch reports a change.
pub struct Hooks {
    /// An ImportedClient is gone.
    pub client_deleted: Hook<ImportedClient>,
    /// A Ticket is gone.
    pub ticket_deleted: Hook<Ticket>,
    /// The store of Tickets has this change.
    pub tickets_stored: Hook<watcher::Event<Ticket>>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            client_deleted: Box::new(|_| ()),
            ticket_deleted: Box::new(|_| ()),
            tickets_stored: Box::new(|_| ()),
        }
    }
}

impl Default for Watches {
    fn default() -> Self {
        let (filled, _) = watch::channel(false);
        let unreadables = Arc::<Unreadables>::default();
        let mut watches = Self {
            connections: Reflector::new(unreadables.clone()),
            clients: Reflector::new(unreadables.clone()),
            tickets: Reflector::new(unreadables.clone()),
            policies: Reflector::new(unreadables.clone()),
            servers: Reflector::new(unreadables.clone()),
            workflows: Reflector::new(unreadables.clone()),
            providers: Reflector::new(unreadables.clone()),
            unreadables,
            ticket_index: Arc::default(),
            client_index: Arc::default(),
            with_rules: true,
            filled,
            to_fill: Vec::new(),
            tasks: JoinSet::new(),
        };
        watches.to_fill = [watches.routing(), watches.rules()].concat();
        watches
    }
}

impl Watches {
    /// The watches of the public listener: what routes a webhook or a callback, and nothing else.
    /// The other stores stay empty.
    pub fn for_routing() -> Self {
        let mut watches = Self {
            with_rules: false,
            ..Self::default()
        };
        watches.to_fill = watches.routing();
        watches
    }

    fn routing(&self) -> Vec<watch::Receiver<bool>> {
        vec![
            self.connections.filled(),
            self.clients.filled(),
            self.tickets.filled(),
            self.providers.filled(),
        ]
    }

    fn rules(&self) -> Vec<watch::Receiver<bool>> {
        vec![
            self.policies.filled(),
            self.servers.filled(),
            self.workflows.filled(),
        ]
    }

    pub fn stores(&self) -> Stores {
        Stores {
            connections: self.connections.store.clone(),
            clients: self.clients.store.clone(),
            tickets: self.tickets.store.clone(),
            policies: self.policies.store.clone(),
            servers: self.servers.store.clone(),
            workflows: self.workflows.store.clone(),
            providers: self.providers.store.clone(),
            unreadables: self.unreadables.clone(),
            filled: self.filled.subscribe(),
        }
    }

    /// Starts one more watch, which has to be filled like the others.
    pub fn start<K>(
        &mut self,
        kube: &Client,
        namespaces: &Namespaces,
        reflector: Reflector<K>,
        config: watcher::Config,
        observe: impl Fn(&watcher::Event<K>) + Send + Sync + 'static,
    ) where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        self.to_fill.push(reflector.filled());
        self.tasks
            .spawn(reflector.run(kube, namespaces, &config, observe, |_| ()));
    }

    /// Starts the watches, one task each: they run on several threads, and none is on another's
    /// stack. A task that ends is a watch that is gone, and with it everything here.
    pub fn run(self, kube: &Client, namespaces: &Namespaces, hooks: Hooks) -> JoinSet<()> {
        let any = &watcher::Config::default();
        let Self {
            mut tasks,
            to_fill,
            filled,
            ..
        } = self;
        tasks.spawn(self.connections.run(kube, namespaces, any, |_| (), |_| ()));
        let index = self.client_index;
        let deleted = hooks.client_deleted;
        let observe = move |event: &watcher::Event<ImportedClient>| {
            index.observe(event);
            if let watcher::Event::Delete(client) = event {
                deleted(client);
            }
        };
        tasks.spawn(self.clients.run(kube, namespaces, any, observe, |_| ()));
        let index = self.ticket_index;
        let deleted = hooks.ticket_deleted;
        let observe = move |event: &watcher::Event<Ticket>| {
            index.observe(event);
            if let watcher::Event::Delete(ticket) = event {
                deleted(ticket);
            }
        };
        // Whoever is woken reads the store, so the store has the change first.
        let stored = hooks.tickets_stored;
        tasks.spawn(self.tickets.run(kube, namespaces, any, observe, stored));
        tasks.spawn(self.providers.run(kube, namespaces, any, |_| (), |_| ()));
        if self.with_rules {
            tasks.spawn(self.policies.run(kube, namespaces, any, |_| (), |_| ()));
            tasks.spawn(self.servers.run(kube, namespaces, any, |_| (), |_| ()));
            tasks.spawn(self.workflows.run(kube, namespaces, any, |_| (), |_| ()));
        }
        tasks.spawn(all_filled(to_fill, filled));
        tasks
    }
}

/// Waits for one store after another: their own wake-ups reach only one waiter.
async fn all_filled(mut stores: Vec<watch::Receiver<bool>>, filled: watch::Sender<bool>) {
    for store in &mut stores {
        // A watch that has ended is never filled: the process ends, and nothing is decided.
        if store.wait_for(|filled| *filled).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
    filled.send_replace(true);
    std::future::pending::<()>().await;
}
