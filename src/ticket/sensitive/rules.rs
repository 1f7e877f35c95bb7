//! The words that make a ticket sensitive. English first, then German, French,
//! Spanish and Dutch.
//!
//! Of Portuguese and Italian only a few words.
//!
//! Written as [`crate::text::words::fold`] leaves them: lower case, no
//! accents, no apostrophes. `*` at the end is any ending.

use super::Kind;

/// `what` near `deed` makes a ticket sensitive, unless a phrase of `not` stands right beside
/// `what`, as in "password policy": further off, anybody may write it to look harmless.
pub struct Rule {
    pub kind: Kind,
    pub what: &'static str,
    /// Empty: `what` alone is enough.
    pub deed: &'static str,
    pub not: &'static str,
}

/// Words that ask for something, or say that it is lost, in five languages.
const PASSWORD: &str = "password*|pasword*|passwort*|passwd|pwd|pw|pass word|passphrase|kennwort*|mot de passe|mots de passe|mdp|contrasena*|clave|wachtwoord*|paswoord*|passcode|login details|login credentials|logon details|zugangsdaten|anmeldedaten|identifiants|credenciales|inloggegevens|credentials|windows hello|hello pin|my pin|windows pin|pin code|login data|logindaten|einloggdaten|access code|senha*|palavra passe|palavra chave|parola dordine";
const PASSWORD_DEED: &str = "fresh|issue me|issue new|issue a|redefin*|esquec*|trocar|reimposta*|dimenticat*|resend|re send|again|asap|what is my|no longer know|not know|dont have|do not have|isnt working|is not working|wont work|does nothing|kenne ich nicht|kenne es nicht|nicht bekannt|connais pas|ne connais|no conozco|no lo se|ken ik niet|reset*|re set|forgot*|forget*|forgott*|forgat|lost|change|changed|changing|new|expired|expires|expiring|expiry|remember|recover*|wrong|incorrect|invalid|not accepted|rejected|not working|doesnt work|does not work|dont work|stopped working|no longer works|not recognised|not recognized|unknown|cant remember|dont know|do not know|set a|set me|send me|give me|tell me|need|not accept*|zuruck*|vergessen|vergass|neues|neu|neue|andern|geandert|abgelaufen|lauft ab|falsch|ungultig|geht nicht|funktioniert nicht|nicht mehr|weiss nicht|brauche|oublie*|reinitialis*|changer|changement|nouveau|expire*|perdu|modifier|ne fonctionne|ne marche|incorrect*|invalide|souviens|renouvel*|olvid*|restablec*|restaur*|cambiar|cambio|cambie|nueva|nuevas|caduc*|expir*|perdi|perdido|resete*|no funciona|no acepta|incorrecta|recuerdo|recuperar|vergeten|kwijt|wijzig*|verander*|nieuw|nieuwe|verlopen|verloopt|werkt niet|onjuist|ongeldig|weet niet|herstel*|opnieuw instellen";
const NOT_PASSWORD: &str = "is it real|is this real|is this legit|real or fake|asks me to reset|policy|policies|richtlinie*|politique|politica|beleid|document*|training|schulung|formation|formacion|phishing|spam|scam|suspicious|verdacht*|password manager*|passwortmanager*|wachtwoordmanager*|gestionnaire|gestor|keepass|bitwarden|1password|lastpass|wifi|wi fi|wlan|wireless|guest network|gaste*|pdf|zip|excel|xlsx|word document|spreadsheet|protected sheet|protected file|how long|how many characters|best practice*|newsletter|article|presentation|survey|quote|price|licence|license*|licenc*|report on|audit|faq|knowledge base|webinar";

pub const RULES: &[Rule] = &[
    Rule {
        kind: Kind::PasswordReset,
        what: PASSWORD,
        deed: PASSWORD_DEED,
        not: NOT_PASSWORD,
    },
    Rule {
        kind: Kind::PasswordReset,
        what: "login|logon|log in|log on|logins|user name|username|login*|zugang|acces|identifiant|usuario|inlog*",
        deed: "forgot|forgotten|forget|lost her|lost his|lost my|vergessen|oublie*|perdu|olvid*|perdid*|vergeten|kwijt",
        not: "forgot to|policy|page|website|training|phishing|badge|office|building",
    },
    Rule {
        kind: Kind::AccountUnlock,
        what: "locked out|lock out|lockedout|lockout|locked me out|unlock*|un lock|entsperr*|freischalt*|debloqu*|deverrouill*|desbloque*|deblokkeer*|deblokkeren|ontgrendel*",
        deed: "",
        not: "door|office door|building|car|cabinet|drawer|safe|file|files|document*|spreadsheet|workbook|excel|record|database|row|table|sheet|bitlocker|sim card|sim lock|network unlock|screen rotation|iphone carrier|datei*|tur|fichier*|porte|archivo*|puerta|bestand*|deur|tuer|schrank|tresor|cajon",
    },
    Rule {
        kind: Kind::AccountUnlock,
        what: "account*|user|profile|login|logon|konto|benutzer*|compte*|utilisateur*|cuenta*|usuario*|gebruiker*|accounts|zugang|sign in|anmeldung|my id|user id",
        deed: "locked|is locked|blocked|gesperrt*|bloque|bloquee|bloques|bloqueado|bloqueada|bloqueo|verrouille*|geblokkeerd*|vergrendeld*|suspended|frozen|too many attempts|too many tries|zu viele versuche|trop de tentatives|demasiados intentos|te vaak geprobeerd|disabled itself",
        not: "file|files|document*|spreadsheet|workbook|excel|record|database|invoice*|order|rechnung*|datei*|fichier*|archivo*|bestand*|bank account overdrawn|sim|spam filter|website blocked|by the spam|e mails blocked|emails blocked|customer account in crm|another user|anderen benutzer|autre utilisateur|otro usuario|andere gebruiker",
    },
    Rule {
        kind: Kind::AccountUnlock,
        what: "cant log in|cannot log in|can not log in|unable to log in|not able to log in|couldnt log in|cant login|cannot login|can not login|unable to login|cant logon|cannot logon|cant log on|cannot log on|unable to log on|cant sign in|cannot sign in|can not sign in|unable to sign in|cant get into my account|cant get in to my account|cant access my account|cannot access my account|no access to my account|kann mich nicht anmelden|kann mich nicht einloggen|komme nicht in mein konto|anmelden nicht moglich|kann sich nicht anmelden|me connecter impossible|impossible de me connecter|impossible de se connecter|narrive pas a me connecter|ne peux pas me connecter|no puedo iniciar sesion|no puedo entrar en mi cuenta|no puedo acceder a mi cuenta|kan niet inloggen|kan niet meer inloggen|kan mij niet aanmelden|kan me niet aanmelden|lukt niet om in te loggen",
        deed: "",
        not: "website is down|page does not load|page not loading|server down|server error|error 500|error 503|internet|scanner|printer|for everyone|everybody|nobody can|all users|alle gebruikers|tous les utilisateurs|todos los usuarios|alle benutzer|nobody|outage",
    },
    Rule {
        kind: Kind::MfaReset,
        what: "temporary access pass|a tap|tap for|tap code|fido*|webauthn|mfa|2fa|authenticator*|authentificator*|authenticater*|autenticator*|two factor|2 factor|two step|2 step|multi factor|multifactor|otp|one time code*|one time password*|security key|yubikey*|hardware token|hardware key|passkey*|key fob|fob|my token|soft token|rsa token|duo|verification code*|verification text*|verification app|auth app|code app|login code*|sign in code*|security code*|sms code*|zwei faktor*|2 faktor*|zweiter faktor|authentifizierungs*|bestatigungscode*|double authentification|authentification a deux|double facteur|code de verification|code sms|codes de verification|code de securite|doble factor|dos factores|autenticador*|autenticacion|codigo de verificacion|codigo sms|codigos|tweestaps*|twee stappen|2 staps*|verificatiecode*|verificatie app|beveiligingscode*|authenticatie*",
        deed: "email me|send me|give me|generate|issue|no account|is empty|empty|shows nothing|refused|since i changed|reset*|lost|new|phone|handy|telefon*|stolen|replace*|replacing|change*|changing|re register|reregister|register|re enrol*|enrol*|move|moving|transfer*|switch*|broke*|broken|smashed|wiped|remove*|disable*|bypass*|turn off|turned off|set up|setup|setting up|no access|not getting|dont get|not receiv*|dont receive|doesnt arrive|not arrive|never arrive*|deleted|uninstalled|cant approve|cannot approve|cant access|need|wont work|not working|doesnt work|expired|old|upgraded|another|different|zuruck*|verloren|neues|neu|kaputt|gestohlen|gewechselt|wechsel*|umstell*|einricht*|einrichten|kommt nicht|kein|keine|geloscht|perdu|nouveau|vole|casse|chang*|reinitialis*|recois pas|recevoir|configurer|activer|desactiver|supprim*|nuevo|movil|perdi|perdido|robado|roto|cambi*|restablec*|no recibo|configurar|desactivar|borre|nieuw*|kwijt|gestolen|kapot|toestel|verwijder*|instellen|ontvang|krijg|uitschakel*|overzetten|resetten|telefoon",
        not: "policy|policies|rollout project|roll out project|project plan|quote|quotation|price|pricing|webinar|training|presentation|documentation|guide for staff|report|how many users|statistics|richtlinie*|angebot|schulung|devis|formation|documentation|presupuesto|formacion|offerte|beleid|handleiding|delivery code|door code|voucher|discount|parcel|qr code|bar code|barcode",
    },
    Rule {
        kind: Kind::AccountUnlock,
        what: "account*|user|users|konto|benutzer*|compte*|utilisateur*|cuenta*|usuario*|gebruiker*|zugang",
        deed: "re enable*|reenable*|re activat*|reactivat*|enable again|enable it|enable my|enable the user|is disabled|was disabled|got disabled|is deactivated|was deactivated|is inactive|not active|nicht aktiv|aktivieren|deaktiviert|reaktivier*|est desactive|desactive|reactiver|reactivez|desactivado|desactivada|reactivar|activar|gedeactiveerd|heractiveren|activeren|weer actief",
        not: "notification*|add in|addin|plugin|feature|licence|license*|software|button|bluetooth|wifi|in the crm|webshop|newsletter",
    },
    Rule {
        kind: Kind::AccountUnlock,
        what: "my login|my logon|my sign in|user login|windows login|windows logon|login|sign in|anmeldung|connexion|inicio de sesion|aanmelding|inloggen|einloggen",
        deed: "not working|doesnt work|does not work|isnt working|stopped working|keeps failing|is rejected|invalid|geht nicht|funktioniert nicht|klappt nicht|ne fonctionne pas|ne marche pas|no funciona|werkt niet|lukt niet",
        not: "page|website|site|everyone|everybody|nobody|all users|alle|server|error 500|error 503|vpn|scanner|printer|tous|todos|slow",
    },
    Rule {
        kind: Kind::AccountUnlock,
        what: "cant get into my|cannot get into my|can not get into my|cant get into windows|cant get into my pc|cant access my email|cannot access my email|cant access my mail*|cannot access my mail*|komme nicht mehr in mein*|komme nicht rein|plus acces a mon compte|plus acces a ma boite|no puedo entrar a mi|geen toegang meer tot mijn",
        deed: "",
        not: "cabinet|drawer|office|door|car|building|house|folder",
    },
    Rule {
        kind: Kind::MfaReset,
        what: "sms|text|texts|text message*|code|codes|approval request*|approval notification*|push|push notification*|call back|verification|sicherheitscode|codigo|le code|de code",
        deed: "old number|wrong number|new number|old phone|wrong phone|alte nummer|alten nummer|falsche nummer|neue nummer|altes handy|ancien numero|mauvais numero|nouveau numero|ancien telephone|numero antiguo|numero viejo|nuevo numero|telefono antiguo|oude nummer|oud nummer|nieuw nummer|verkeerd nummer|oude telefoon|number changed|new sim",
        not: "marketing|campaign|door code|voicemail|fax|customer text",
    },
    Rule {
        kind: Kind::MfaReset,
        what: "new phone|new mobile|new handset|new iphone|lost my phone|lost phone|phone was stolen|stolen phone|phone broke|neues handy|neues telefon|handy verloren|handy gestohlen|nouveau telephone|telephone perdu|perdu mon telephone|vole mon telephone|nuevo telefono|nuevo movil|perdi el movil|perdi mi telefono|nieuwe telefoon|telefoon kwijt|telefoon gestolen|nieuw toestel|changed phones|changed my phone|switched phones|replaced my phone",
        deed: "code|codes|log in|login|sign in|signin|approve|approval|app|verify|verification|authenticate|authentication|access|account|m365|office 365|microsoft|anmeld*|einloggen|bestatig*|connect*|connexion|valider|sesion|acceder|inlog*|aanmeld*|goedkeur*|toegang|locked",
        not: "order|ordering|quote|price|purchase|buy|case|charger|headset|contract|sim|delivery|bestell*|commander|pedido",
    },
    Rule {
        kind: Kind::AdminRights,
        what: "admin|admins|administrator*|adminrecht*|adminrechte|admin recht*|administratorrecht*|local admin|domain admin*|global admin*|root|sudo|superuser|super user|super admin|elevated|elevate*|privilege*|privileged|full control|owner rights|administrateur*|administrador*|beheerder*|beheerdersrechten|beheerrechten|adminrol|rechten als beheerder|enterprise admins|schema admins|power user",
        deed: "need|needs|give|grant*|add|adding|added|make|making|request*|want|wants|would like|right|rights|access|permission*|promote*|assign*|role|account for|become|temporary|temporarily|create|brauche|braucht|benotig*|gib|geben|hinzu*|erteil*|bekommen|rechte|zugriff|anlegen|donner|donnez|ajout*|droits|acces|accord*|besoin|creer|dar|dame|anadir|agregar|permisos|derechos|necesit*|acceso|conceder|hacer|crear|nodig|geef|geven|toevoeg*|rechten|toegang|toekennen|maken|aanmaken",
        not: "contact your administrator|ask your administrator|contact your system administrator|your administrator|system administrator to|administrator has|your admin has|admin fee|admin department|administration|admin office|blocked by your|by your organization|by your organisation|sys admin says|admin team said|as admin it works|wenden sie sich|contactez votre|contacte con|contacte a su|neem contact op met",
    },
    Rule {
        kind: Kind::AdminRights,
        what: "administratorrechte|administrator rechte|adminrechte|admin rechte|admin rights|administrator rights|administrative rights|administrative access|admin access|admin privileges|administrator privileges|local administrator|lokale administrator*|lokaler admin*|lokale admin*|droits admin|droits administrateur|droits dadministrateur|permisos de administrador|derechos de administrador|beheerdersrechten|beheerrechten|adminrechten|admin rechten|domain admin*|global admin*|root access|sudo access|rights to install|permission to install|permissions to install|install rights|installation rights|installationsrechte|rechte zum installieren|rechten om software|rechten om te installeren|droits dinstallation|droit dinstaller|droits pour installer|permisos para instalar|permiso para instalar|administrator of my|administrator on my|admin on my",
        deed: "",
        not: "contact your administrator|ask your administrator|policy|audit|report on|who has|list of",
    },
    Rule {
        kind: Kind::AdminRights,
        what: "security group|ad group|active directory group|sicherheitsgruppe|ad gruppe|groupe de securite|grupo de seguridad|beveiligingsgroep",
        deed: "add|adding|put|include|member*|hinzu*|aufnehmen|ajout*|anadir|agregar|toevoeg*",
        not: "report|list of|audit|documentation",
    },
    Rule {
        kind: Kind::AdminRights,
        what: "full control|owner of|team owner|site owner|co owner|make me owner|vollzugriff|controle total|control total|volledige toegang|volledig beheer",
        deed: "grant*|give|make|need*|add|geben|gib|erteil*|donner|dar|geef|geven|nodig",
        not: "printer|car|business owner|owner of the company|owner of this ticket",
    },
    Rule {
        kind: Kind::AdminRights,
        what: "group|security group|gruppe|groupe|grupo|groep|role|rolle|rol",
        deed: "add me to|add him to|add her to|add them to|add user to|add to the|member of|membership|put me in|hinzufugen|aufnehmen|ajouter au|ajouter a|anadir al|agregar al|toevoegen aan",
        not: "distribution|verteiler*|mailing list|newsletter|whatsapp|teams chat|chat group|liste de diffusion|lista de distribucion|distributielijst|lunch|project team",
    },
    Rule {
        kind: Kind::MailboxAccess,
        what: "mailbox*|shared mailbox|calendar|calendars|kalender|calendrier|agenda|emails|mails|outlook of|inbox|inboxes|mail account|email account|emails of|mails of|her emails|his emails|her mail|his mail|calendar of|postfach|postfacher|mailkonto|boite mail|boite aux lettres|boite de reception|messagerie|boites|buzon|buzones|correo de|correos de|postvak|mailbox van|mails van|e mail van|her inbox|his inbox",
        deed: "access to|give access|full access|permission*|delegate*|delegation|read his|read her|read the mails|send as|send on behalf|rights|open|read|see|view|grant|give him|give her|give me|give them|access|zugriff|berechtigung*|rechte|lesen|freigeben|freigabe|stellvertret*|acces|droits|delegation|autorisation|lire|consulter|acceso|permiso*|delegar|leer|ver|toegang|rechten|machtig*|lezen|inzien|gemachtigd",
        not: "invite*|invitation*|is full|mailbox full|full mailbox|almost full|nearly full|inbox full|quota|size|too big|storage|slow|search|not loading|wont open|does not open|cant open outlook|crash*|error|sync*|printing|ist voll|postfach voll|speicher|langsam|pleine|lente|esta lleno|buzon lleno|llena|tamano|lento|is vol|mailbox vol|traag|opslag|cant access my|cannot access my|missing|attachment|my own calendar",
    },
    Rule {
        kind: Kind::MailboxAccess,
        what: "forward*|redirect*|auto forward*|autoforward*|weiterleit*|umleit*|transferer|transfert|rediriger|redirection|reenvi*|redirig*|doorstur*|doorzend*|doorgestuurd",
        deed: "all mail*|all email*|all e mail*|all messages|his mail*|her mail*|my mail*|my email*|his email*|her email*|emails to|mails to|mail to|email to|mailbox|inbox|set up|setup|private address|gmail|hotmail|to my private|to another|to her|to him|external|mails an|alle mails|e mails an|emails an|einrichten|postfach|mes mails|ses mails|les mails|mes courriels|les courriels|vers|mis correos|sus correos|los correos|todos los correos|a mi|mijn mail*|zijn mail*|haar mail*|alle mail*|naar mijn|naar een|e mails naar",
        not: "call forward*|phone forward*|forwarded to the wrong|url|website|web page|http|dns|domain redirect|port forward*|rufweiterleitung|anrufweiterleitung|rufumleitung|transfert dappel*|desvio de llamadas|doorschakel*|link|browser|old site|calls",
    },
    Rule {
        kind: Kind::MailboxAccess,
        what: "copy of all mails|copy of all emails|copies of all|emails of|mails of|bcc of|mails for|emails for|e mails for|mail for|mails of|his mails|her mails|his emails|her emails|all mails|all emails",
        deed: "to me|for me|please|go to|should go|be sent to|sent to me|come to me|copied to|copy to|arrive at|also to me",
        not: "bounced|spam|undeliverable|newsletter|missing",
    },
    Rule {
        kind: Kind::PayrollChange,
        what: "bank|bank details|bank account|banking details|iban|account number|sort code|routing number|payroll|pay roll|salary|wages|direct deposit|payment details|bankverbindung*|bankdaten|kontonummer|kontoverbindung|gehalt*|gehaltskonto|lohn|lohnkonto|coordonnees bancaires|compte bancaire|rib|virement*|salaire*|paie|cuenta bancaria|datos bancarios|numero de cuenta|nomina|salario|bankrekening*|rekeningnummer*|bankgegevens|salaris*|loon",
        deed: "change*|changing|update*|updating|new|switch*|moved|different|another|replace|andern|geandert|anderung|neue|neu|neuen|aktualisier*|wechsel*|umstell*|changer|changement|chang*|modif*|nouveau|nouvelle|nouvelles|mettre a jour|mise a jour|actualis*|cambi*|nueva|nuevo|nuevos|actualiz*|modific*|wijzig*|aanpass*|verander*|nieuw|nieuwe|bijwerk*",
        not: "bank holiday|food bank|power bank|data bank|bank website|online banking page|page does not load|software|program|programme|print*|report|crash*|error|version|server|slow|not opening|wont start|does not start|install*|license|licence|lizenz|logiciel|programa|programma|increase request form|salary survey|holiday|module",
    },
    Rule {
        kind: Kind::RemoteAccess,
        what: "vpn|rdp|remote desktop|remote access|remote login|remote working|work from home|working from home|home office|homeoffice|teamviewer|anydesk|citrix|jump host|jumphost|fernzugriff|fernzugang|remotezugriff|remote zugriff|teletravail|acces a distance|acces distant|bureau a distance|acceso remoto|escritorio remoto|teletrabajo|thuiswerk*|toegang op afstand|externe toegang|extern inloggen|ssh",
        deed: "need|needs|give|grant*|enable*|enabling|request*|set up|setup|access|activate*|add|want|wants|would like|create|allow*|new|permission*|einricht*|einrichten|freischalt*|freigeben|brauch*|benotig*|aktivier*|zugriff|zugang|bekommen|donner|activer|besoin|accorder|ouvrir|acces|configurer|creer|dar|activar|necesit*|habilitar|conceder|acceso|configurar|crear|nodig|geven|instellen|aanmaken|activer*|toegang|inschakel*",
        not: "slow|drops|dropping|disconnect*|keeps disconnecting|unstable|not connecting|wont connect|does not connect|doesnt connect|cannot connect|cant connect|fails|failed|failing|error|timeout|times out|freezes|lag|crash*|langsam|bricht ab|trennt|verbindet nicht|abbruch|fehler|lente|coupe|se deconnecte|erreur|ne se connecte|lenta|se desconecta|no conecta|traag|verbreekt|valt weg|verbindt niet|foutmelding|certificate expired|update failed|installation of update|headset|chair|monitor",
    },
    Rule {
        kind: Kind::RemoteAccess,
        what: "external access|outside access|access from outside|access from home|vpn access|remote access for|remote access to|externer zugriff|externer zugang|zugriff von aussen|zugriff von zuhause|vpn zugang|vpn zugriff|acces externe|acces vpn|acces depuis lexterieur|acceso externo|acceso vpn|acceso desde casa|vpn toegang|toegang van thuis|toegang van buitenaf",
        deed: "",
        not: "slow|drops|error|policy|not working|doesnt work|broken|report|documentation|langsam|lent|lente|lento|lenta|traag|fehler|erreur|fout",
    },
    Rule {
        kind: Kind::RemoteAccess,
        what: "from outside|from the outside|from abroad|outside the office|von aussen|von ausserhalb|de lexterieur|desde fuera|van buitenaf|third party|external auditor|external consultant|contractor|vendor|supplier",
        deed: "access|get onto|get on to|get into|connect to|log on to|server|zugriff|zugang|acces|acceso|toegang",
        not: "email|mails|invoice|mailbox|slow|error|printer|delivery|contact",
    },
    Rule {
        kind: Kind::OffBoarding,
        what: "is leaving|are leaving|leaves on|leaving us|leaves us|has quit|quit yesterday|quit last|left last week|left us|has left|will be leaving|leaves next|leaves at the end|leaving on|leaving next|contract ends|contract ended|vertrag endet|vertrag lauft aus|contrat se termine|fin de son contrat|contrato termina|termina su contrato|contract loopt af|contract eindigt|redundan*|made redundant|close her account*|close his account*|close their account*|close the account*|close the user",
        deed: "",
        not: "for holiday|on holiday|on vacation|early|the meeting|the building|the office for|support contract|maintenance|lease|phone contract|supplier contract|train",
    },
    Rule {
        kind: Kind::OffBoarding,
        what: "terminated today|terminated yesterday|terminated effective|was terminated|were terminated|got terminated|been terminated|terminated an employee",
        deed: "",
        not: "session|process|connection|call|unexpectedly|error|program|application|contract with the supplier|thread",
    },
    Rule {
        kind: Kind::OffBoarding,
        what: "deactivate*|disable*|revoke*|remove|block|withdraw|deaktivier*|sperren|sperr|entzieh*|desactiv*|bloquer|bloquear|revocar|retirer|blokkeer*|blokkeren|intrekken",
        deed: "she left|he left|they left|left yesterday|left us|has left|left today|rights|permissions|hr case|hr asked|asked by hr|all access|access rights|ausgeschieden|gekundigt|rechte|quitte|droits|despedid*|permisos|derechos|uit dienst|rechten|vertrokken",
        not: "cookie*|mouse|button|popup*|notification*|add in|addin|plugin|copyright*|printing rights|printer|admin rights to everyone|read only",
    },
    Rule {
        kind: Kind::OffBoarding,
        what: "leaver|leavers|offboard*|off board*|off boarding|left the company|leaving the company|leaves the company|has left us|last day|last working day|last day of work|resign*|terminated employee|termination|was fired|been fired|dismissed|no longer employed|no longer works|no longer with us|not with us anymore|former employee|ex employee|austritt|ausgeschieden|scheidet aus|verlasst uns|verlasst das unternehmen|verlasst die firma|letzter arbeitstag|gekundigt|kundigung|ehemalig*|quitte lentreprise|quitte la societe|a quitte|dernier jour|depart de|fin de contrat|licencie|demission*|ancien employe|ancienne employee|ultimo dia|baja de|se va de la empresa|deja la empresa|dejo la empresa|ha dejado la empresa|despedido|despedida|dimit*|ex empleado|ya no trabaja|uit dienst|laatste werkdag|verlaat het bedrijf|verlaat ons|ontslag|ontslagen|niet meer in dienst|werkt niet meer bij|oud medewerker|oud collega",
        deed: "",
        not: "last day of the month|last day of the offer|last day of the trial|termination fee|contract with the supplier|resign in|last day to|kundigung des vertrags|fin de contrat de maintenance|handbook|policy|process document",
    },
    Rule {
        kind: Kind::OffBoarding,
        what: "account*|user|users|mailbox|login|access|benutzer*|konto|konten|zugang|zugange|compte*|utilisateur*|cuenta*|usuario*|gebruiker*|accounts|employee|mitarbeiter*",
        deed: "disable*|deactivate*|de activate|terminate*|block|blocked immediately|delete|remove|revoke*|suspend|close down|shut off|cut off|deaktivier*|sperren|loschen|entfernen|entzieh*|desactiver|desactivez|desactivation|supprimer|supprimez|bloquer|revoquer|desactivar|desactive|eliminar|borrar|bloquear|revocar|quitar|uitschakel*|deactiveren|blokkeren|blokkeer|verwijder*|intrekken|afsluiten",
        not: "cookie*|cache|notification*|add in|addin|plugin|sound|history|profile picture|printer|job|queue|app|browser|popup*|shortcut|old file*|duplicate contact|test printer|ad blocker|delete account in game|spam|sender|cant delete|cannot delete|access database|ms access|microsoft access",
    },
    Rule {
        kind: Kind::RecoveryCodes,
        what: "recovery code*|recovery key*|backup code*|back up code*|bitlocker*|emergency code*|recovery phrase|seed phrase|wiederherstellungsschlussel|wiederherstellungscode*|backup codes|notfallcode*|code de recuperation|codes de recuperation|codes de secours|code de secours|cle de recuperation|codigo de recuperacion|codigos de recuperacion|clave de recuperacion|codigos de respaldo|herstelcode*|herstelsleutel*|back upcode*|noodcode*",
        deed: "",
        not: "policy|documentation|rollout plan|report|quote|price|training|file recovery|data recovery",
    },
    Rule {
        kind: Kind::VipChange,
        what: "directors|director|ceo|cfo|cto|coo|chief executive|managing director|our director|the director|chairman|board member|vip|president|managing partner|geschaftsfuhr*|vorstand|chef|chefin|inhaber|pdg|directeur general|directrice generale|le directeur|director general|la directora|el director|gerente general|algemeen directeur|directie|bestuurder",
        deed: "phone|mobile|mail address|new mail|change|changing|reset|phone number|mobile number|email address|e mail address|access|delegate|assistant|forward*|password|permissions|contact details|new number|details|wire|transfer|urgent payment|gift cards|nummer andern|andern|zugriff|adresse|nummer|weiterleit*|changer|modifier|numero|acces|adresse mail|cambiar|numero|acceso|correo|wijzigen|nummer|toegang|adres|doorsturen",
        not: "called|printer|printing|projector|monitor|laptop slow|wifi|presentation|screen|keyboard|said|says hello|newsletter|chair|coffee|drucker|imprimante|impresora",
    },
];
