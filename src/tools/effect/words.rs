//! The words by which a tool's effect is known: English, and German, French, Spanish and Dutch as
//! tool servers write them. Lower case without accents; `*` at the end of a word is any ending,
//! `+` joins words that follow each other.

use super::Effect;

/// One effect and what shows it.
pub struct Rule {
    pub effect: Effect,
    /// Enough alone, in a tool that changes something.
    pub alone: &'static str,
    /// Together with one of `objects`.
    pub verbs: &'static str,
    pub objects: &'static str,
}

/// A name with one of these reads, unless it has one of [`WRITES`] too.
pub const READS: &str = "get list read search find fetch show view query describe lookup look \
    check count retrieve browse inspect monitor trace locate download lire lister chercher \
    obtenir lesen anzeigen suchen auflisten abrufen leer listar buscar obtener mostrar lezen \
    tonen zoeken ophalen";
/// What changes something, also in a name that begins with `get`.
pub const WRITES: &str = "creat* add adds added adding updat* modif* edit edits chang* set sets \
    delet* remov* reset* rotat* roll* regenerat* generat* issues enabl* disabl* activat* \
    deactivat* suspend* unsuspend* lock* unlock* block* unblock* regist* enrol* unenrol* \
    revok* grant* assign* unassign* attach* detach* invit* forward* redirect* delegat* \
    transfer* pay pays refund* charge* cancel* wip* eras* retir* isolat* shar* publish* \
    send* execut* run runs invok* call calls merg* renam* impersonat* provision* \
    deprovision* import* export* writ* put post upload* restor* terminat* approv* release* \
    clear* expire*";
/// What a tool that only reads must not give away either.
pub const SECRETS: &str = "passwor* passwd passcode* passphrase* credential* secret* kennw* \
    contrasen* wachtwoord* mot+de+passe motdepasse api+key* api+token* access+key* \
    access+token* refresh+token* private+key* ssh+key* recovery+key* recovery+code* \
    encryption+key* bitlocker laps filevault fde totp otp bypass+code* backup+code* vault \
    vaults zugangsdat* credencial* inloggeg*";
/// After a secret: it is about it, like a password policy.
pub const ABOUT: &str = "policy policies expiry expiration expires requirement* setting* \
    strength complexity history reset* age richtlinie*";
/// Properties that only a sensitive tool takes.
pub const PROPERTIES: &str = "passwor* passwd passphrase* secret* otp totp mfa iban ssn salary \
    permission* privileg* sudo admin isadmin forwarding* forward script scripts powershell \
    routing+number* bank+account* card+number*";
/// Here the object of a verb ends.
pub const ENDS: &str = "in of for from on by with at into onto under through via im von vom fur \
    zum zur auf aus bei mit eines einer des der de du d dans pour sur avec del en para por \
    con van voor op met naar aan about after before until when if that which who while and \
    or";
/// As above, but an object that is moved goes on: add a user to a group.
pub const TOWARDS: &str = "to zu a au aux al an";
/// Verbs whose object goes somewhere.
pub const MOVES: &str = "add* remov* assign* unassign* giv* associat* bind* attach* grant* \
    agreg* ajout* voeg* toevoeg* hinzu* fug* anad* asign* wijs*";

pub const RULES: [Rule; 11] = [
    Rule {
        effect: Effect::Credentials,
        alone: "passwor* passwd pwd passcode* passphrase* credential* secret* kennw* \
            contrasen* wachtwoord* motdepasse mot+de+passe temporary+access+pass tap \
            api+key* api+token* api+secret* access+key* access+token* refresh+token* \
            private+key* ssh+key* recovery+key* recovery+code* encryption+key* bitlocker \
            laps filevault zugangsdat* anmeldedat* identifiants credencial* clave \
            clave+de+acceso inloggeg* aanmeldgeg* sign+in+detail* login+detail* \
            service+account+key*",
        verbs: "reset* rotat* roll* revok* invalidat* regenerat* generat* issu* creat* clear* \
            renew* regist* set sets chang* expir* kill* terminat* zurucksetz* zuruecksetz* \
            reinitialis* restablec*",
        objects: "token* session* key keys pin pins login logins",
    },
    Rule {
        effect: Effect::Factors,
        alone: "mfa 2fa 2sv tfa totp otp otps authenticator* authentifi* fido fido2 passkey* \
            webauthn yubikey* security+key* two+factor* two+step* 2+step* multi+factor* \
            multifactor* multifaktor* second+factor* factor factors faktor* \
            authentication+method* auth+method* phone+method* bypass+code* backup+code* \
            backup+verification verification+code* activation+code* activation+url \
            security+question* strong+auth* enrol*",
        verbs: "delet* remov* regist* enrol* add adds set sets chang* updat*",
        objects: "phone phones hardtoken* hard+token*",
    },
    Rule {
        effect: Effect::Privileges,
        alone: "privileg* permission* admin admins administrator* superadmin sudo sudoer* \
            entitlement* rbac acl acls berechtig* full+access ownership owner owners \
            consent consents eigentumer* besitzer* proprietaire* propietario* eigenaar* \
            elevat* impersonat* collaborator* access+right*",
        verbs: "add adds adding added remov* assign* unassign* grant* revok* giv* gives invit* \
            join* attach* detach* promot* demot* set sets chang* updat* creat* delet* \
            delegat* associat* bind* bound allow* activat* deactivat* vergeb* vergib* \
            zuweis* gewahr* entzieh* hinzufug* fugt ajout* retir* attribu* accord* agreg* \
            anad* quit* asign* otorg* conced* toevoeg* voeg* toewijz* wijs* verleen*",
        objects: "role roles group groups member members membership* licens* licenc* access \
            accesses scope scopes team teams right rights application applications rechte \
            rollen rolle gruppe gruppen mitglied* lizenz* zugriff* zugang droit droits \
            groupe groupes membre membres acces grupo grupos miembro miembros rol permiso \
            permisos derechos licencia* groep groepen lid leden rechten toegang",
    },
    Rule {
        effect: Effect::MailFlow,
        alone: "forward* mail+rule* inbox+rule* message+rule* mailbox+rule* transport+rule* \
            mail+flow gmail+filter* mail+filter* mail+delegat* mailbox+delegat* delegat* \
            send+as send+on+behalf on+behalf mx spf dkim dmarc weiterleit* umleit* \
            redirect* redirig* reenvi* doorstur* doorgestuurd alias aliases \
            automatic+repl* auto+repl* out+of+office",
        verbs: "set sets updat* modif* creat* chang* convert* grant* add adds remov* delet*",
        objects: "mailbox mailboxes postfach postfacher postvak* buzon buzones",
    },
    Rule {
        effect: Effect::Money,
        alone: "payment* payout* payroll* refund* invoice* iban bank bankaccount* \
            bank+account* routing+number* credit+note* credit+card* card+number* billing \
            bill bills billed subscription* dispute* purchas* rechnung* zahlung* \
            gutschrift* bankverb* factur* paiement* pago pagos rembours* reembols* \
            betaling* uberweis* ueberweis* wire+transfer* coupon* checkout*",
        verbs: "creat* updat* chang* set sets cancel* plac* submit* modif* delet* add adds",
        objects: "order orders price prices charge charges quote quotes vendor vendors supplier*",
    },
    Rule {
        effect: Effect::People,
        alone: "ssn salary salaries compensat* personal+data personnel time+off sick+leave \
            payslip* medical patient* gehalt* lohn* salaire* nomina nominas salaris* \
            offboard* onboard* leaver joiner",
        verbs: "creat* add adds adding added updat* modif* edit* chang* set sets delet* remov* \
            reset* regist* import* merg* renam* replac* anleg* legt anlegen erstell* \
            ander* losch* hinzufug* entfern* cre creer cree ajout* supprim* crea crear \
            elimin* borr* anad* agreg* cambi* maak* maakt wijzig* verwijder* voeg* \
            toevoeg* terminat* hir* end ends fire fires",
        objects: "contact contacts customer customers employee employees employment* person \
            persons people staff end+user end+users mitarbeiter* kontakt kontakte kunde \
            kunden employe employes empleado* medewerker*",
    },
    Rule {
        effect: Effect::Identities,
        alone: "unlock* entsperr* deverrouill* desbloque* ontgrendel* deprovision* \
            sign+in+block*",
        verbs: "creat* add adds adding added updat* modif* edit* chang* set sets delet* remov* \
            reset* regist* import* merg* renam* replac* anleg* legt anlegen erstell* \
            ander* losch* hinzufug* entfern* cre creer cree ajout* supprim* crea crear \
            elimin* borr* anad* agreg* cambi* maak* maakt wijzig* verwijder* voeg* \
            toevoeg* provision* disabl* enabl* activat* deactivat* suspend* unsuspend* \
            reactivat* block* unblock* lock* invit* convert* sperr* aktivier* deaktivier* \
            desactiv* activ* bloque* blokkeer* deactiveer* schakel* turn* mak*",
        objects: "user users username systemuser* systemusers account accounts identity \
            identities guest guests login logins sign+in signin benutzer* konto konten \
            utilisateur* compte comptes usuario usuarios cuenta cuentas gebruiker*",
    },
    Rule {
        effect: Effect::Security,
        alone: "conditional+access firewall* waf certificate* zertifikat* certificat* \
            certificado* quarantin* antivirus defender edr sign+on+polic* security+polic* \
            compliance+polic* branch+protection blocklist* allowlist* whitelist* \
            blacklist* block+list* allow+list* sso saml ldap federat* audit+log* vpn \
            exclusion* security+group* security+setting* global+setting* lockout* \
            access+polic* access+application* policy+override* password+polic* dns+record* \
            dns+zone* name+server* nameserver*",
        verbs: "creat* updat* chang* modif* edit* set sets delet* remov* add adds enabl* \
            disabl* assign* attach* detach* activat* deactivat* appl* ander* losch* \
            modifi* cambi* wijzig*",
        objects: "policy policies dns protection richtlinie* strategie* politica* beleid* \
            security",
    },
    Rule {
        effect: Effect::Devices,
        alone: "wipe wipes wiped wiping eras* factory+reset* factory+setting* powershell \
            remote+control* remote+session* take+control isolat* mdm script scripts \
            run+command* shell",
        verbs: "delet* remov* lock* unlock* retir* format* unenrol* decommission* wist wissen \
            losch* effac* borr* reset resets",
        objects: "device devices computer computers system systems host hosts machine machines \
            endpoint endpoints laptop* gerat* gerate appareil* apparaat* apparaten \
            dispositivo* rechner",
    },
    Rule {
        effect: Effect::Devices,
        alone: "",
        verbs: "run runs running execut* send sends invok* start starts push* fuhrt ausfuhr* \
            execute lanc* ejecut* voer*",
        objects: "command commands script scripts befehl* commande* comando* opdracht*",
    },
    Rule {
        effect: Effect::Export,
        alone: "export* exfil* ediscovery dump dumps pst public+link* sharing+link* \
            share+link* public+share* anonymous+link* share shares sharing shared freigeb* \
            freigab* partag* compart* backup+download*",
        verbs: "download* publish* copy copies transfer* sync* mak* upload*",
        objects: "mailbox mailboxes archive archives database databases vault vaults backup \
            backups public",
    },
];
