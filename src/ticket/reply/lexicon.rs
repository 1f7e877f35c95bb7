//! Phrases of replies, by what they do to a decision. English first, then German,
//! French, Spanish and Dutch.
//!
//! Written as [`crate::text::words`] leaves them: lower case, no accents, no
//! apostrophes (`dont`, `daccord`). Spanish `sí` is `si!`, so that it differs from `si`.

/// What a phrase does to a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Says yes wherever it is in a sentence.
    Yes,
    /// Says yes at the start of a sentence only, and weakly: `ok` is an answer there, a state
    /// elsewhere.
    YesAtStart,
    /// Says no.
    No,
    /// Says no at the start of a sentence, negates elsewhere.
    NoAtStart,
    /// `Don't ...` at the start of a sentence: says no, unless [`Kind::Harmless`] follows.
    Forbids,
    Negates,
    /// What may follow `don't` without forbidding anything.
    Harmless,
    Condition,
    Part,
    /// Another time, or the writer does it.
    Later,
    Wait,
    Hedge,
    Question,
    /// Somebody else's words or decision.
    Others,
    /// Something beyond the steps.
    More,
    /// Reports the state of things.
    Report,
    /// Asks for an approval instead of giving one.
    Asks,
    Irony,
    /// Says nothing either way.
    Polite,
}

pub const LEXICON: &[(Kind, &str)] = &[
    // Yes.
    (
        Kind::Yes,
        "lets do it|lets go|lets do this|lets go ahead|lets proceed|happy for this to go ahead|happy for that to go ahead|happy for it to go ahead|feel free|feel free to go ahead|feel free to proceed|you can go ahead|you can proceed|ok to proceed|okay to proceed|fine to proceed|good to proceed|clear to proceed|free to proceed|ok to go ahead|okay to go ahead|fine to go ahead|i am happy with this|i am happy for you to|i am fine with this|i am ok with this|i am okay with this|im fine with this|im ok with this|im okay with this|im happy with this|im happy for you to|we are happy for you to|we are happy with this|i have no objection|i have no objections|we have no objections|i have no problem with this|i have no issue with this|i do approve|approve|approved|approval granted|approval given|you have my approval|has my approval|have my approval|i approve|go ahead|goahead|go for it|proceed|confirmed|i confirm|agreed|i agree|fine by me|fine with me|okay by me|ok by me|okay with me|ok with me|sounds good|looks good|lgtm|green light|greenlight|green lit|greenlit|make it so|good to go|youre good to go|you are good to go|permission granted|authorised|authorized|i authorise|i authorize|you may proceed|you may go ahead|no objection|no objections|nothing against it|happy for you to|happy with this|happy with that|happy with the plan|works for me|granted|be my guest|knock yourself out|by all means|ship it|signed off|i sign off|+1|carry on|accepted|you have the go|its a go|thats a yes|its a yes",
    ),
    (
        Kind::Yes,
        "genehmigt|genehmige|ich genehmige|freigegeben|freigabe erteilt|ich gebe frei|gebe ich frei|gebe frei|gebe das frei|einverstanden|in ordnung|geht in ordnung|geht klar|leg los|legen sie los|los gehts|kannst du machen|konnen sie machen|kann gemacht werden|kann so gemacht werden|so machen|bitte durchfuhren|bitte ausfuhren|bitte umsetzen|bestatigt|ich bestatige|stimme zu|ich stimme zu|zugestimmt|zustimmung erteilt|meine zustimmung|grunes licht|keine einwande|nichts dagegen|okay fur mich|ok fur mich|passt fur mich|akzeptiert|darfst du|durfen sie|nur zu|genehmigung erteilt|freigabe von mir",
    ),
    (
        Kind::Yes,
        "daccord|je suis daccord|approuve|approuvee|approuves|japprouve|cest approuve|je valide|cest valide|allez y|vas y|bon pour moi|bon pour accord|ok pour moi|feu vert|accorde|mon accord|jaccepte|je confirme|vous pouvez proceder|tu peux proceder|vous pouvez y aller|tu peux y aller|aucune objection|pas dobjection|sans objection|jautorise|marche pour moi|ca me va|cela me va|procedez|faites le|fais le|validation ok|valide",
    ),
    (
        Kind::Yes,
        "aprobado|aprobada|aprobados|aprobadas|apruebo|lo apruebo|adelante|de acuerdo|estoy de acuerdo|proceda|procede|procedan|proceded|puede proceder|puedes proceder|pueden proceder|autorizado|autorizada|autorizo|lo autorizo|hazlo|hagalo|haganlo|hacedlo|confirmado|lo confirmo|me parece bien|me parece perfecto|luz verde|sin objeciones|ninguna objecion|visto bueno|tiene mi aprobacion|tienes mi aprobacion|tienen mi aprobacion|por mi bien|ok por mi|por mi ok|acepto",
    ),
    (
        Kind::Yes,
        "akkoord|ik ga akkoord|goedgekeurd|is goedgekeurd|mijn goedkeuring|keur goed|ik keur het goed|ik keur dit goed|ga je gang|ga uw gang|gaat uw gang|doe maar|doe het maar|doe dat maar|ga maar|ga maar door|ga door|ga verder|ga ervoor|mag je doen|mag u doen|mag uitgevoerd worden|voer maar uit|voer het uit|voer dit uit|je hebt mijn toestemming|u heeft mijn toestemming|mijn toestemming|groen licht|bevestigd|ik bevestig|geen bezwaar|geen bezwaren|niets op tegen",
    ),
    (
        Kind::YesAtStart,
        "go on|go on then|yes|yep|yeah|yup|yess|yea|aye|ok|okay|okey|oki|sure|sure thing|do it|please do|do that|do so|do this|confirm|agree|fine|thats fine|this is fine|its fine|carry it out|carry them out|run it|run them|run these|run the steps|run|execute|execute it|execute the plan|accept|crack on|get it done|absolutely|definitely|of course|certainly|affirmative|roger|thumbs up|let it run|very well|alright|start|go|apply|apply it|apply them|apply the changes|make the change|make the changes",
    ),
    (
        Kind::YesAtStart,
        "ja|jawohl|jo|jep|jup|gerne|sehr gerne|gern|klar|na klar|selbstverstandlich|naturlich|passt|passt so|passt alles|na los|dann los|mach|mach mal|mach es|mach das|machen|bitte machen|machen sie|machen sie das|durchfuhren|ausfuhren|umsetzen|bitte starten|starten|weitermachen|tu es|tun sie es|das ist in ordnung|bestatige|freigabe|erlaubt",
    ),
    (
        Kind::YesAtStart,
        "oui|ouais|cest bon|cest bon pour moi|bien sur|entendu|volontiers|ca marche|accord|accepte|confirme|faites|fais|lancez|lance|executez|on y va|ok pour|autorise|validation",
    ),
    (
        Kind::YesAtStart,
        "si!|sip|claro|claro que si!|por supuesto|desde luego|vale|dale|venga|conforme|esta bien|correcto|ejecutalo|ejecutelo|ejecutar|ejecuta|confirmo|aceptado",
    ),
    (
        Kind::YesAtStart,
        "prima|prima zo|is prima|dat is prima|is goed|dat is goed|het is goed|in orde|is in orde|dat is in orde|mag|dat mag|het mag|mag door|uitvoeren|graag uitvoeren|voer uit|graag|heel graag|doen|doe het|zeker|jazeker|natuurlijk|uiteraard|jawel|oke|toegestaan|bevestig|toestemming|start maar",
    ),
    // No.
    (
        Kind::No,
        "but no thanks|id rather not|rather not|id prefer not|prefer not|i dont want|we dont want|i do not want|dont want this|dont like this|i dont agree|i disagree|disagree|bad idea|not a good idea|terrible idea|decided against|not going ahead|not happening|should not be done|shouldnt be done|must not be done|approval is denied|request denied|deny|denied|i deny|reject|rejected|i reject|decline|declined|i decline|refuse|refused|disapprove|disapproved|unapproved|abort|cancel|cancelled|cancel it|cancel this|cancel that|stop|stop it|stop this|nope|nah|no way|negative|forget it|leave it|leave it alone|leave it as it is|leave it as is|leave as is|skip it|skip this|no need|not needed|not necessary|not required|dont bother|absolutely not|definitely not|certainly not|of course not|no thanks|no thank you|nothing doing|permission denied|approval denied|not approved|not authorised|not authorized|not ok|not okay|not fine|hard no|thats a no|its a no|veto|nay|over my dead body|hands off|never",
    ),
    (
        Kind::No,
        "genehmige ich nicht|gebe ich nicht frei|keine zustimmung|stimme nicht zu|stimme ich nicht zu|kommt nicht in frage|schlechte idee|abgelehnt|ablehnen|lehne ab|ich lehne ab|lehne ich ab|lehne das ab|wird abgelehnt|verweigert|abbrechen|abbruch|bitte abbrechen|stopp|auf keinen fall|auf gar keinen fall|keinesfalls|bitte nicht|lass es|lass das|lassen sie es|lassen sie das|lieber nicht|besser nicht|nicht genehmigt|nicht freigegeben|nicht einverstanden|bin dagegen|ich bin dagegen|dagegen|keine freigabe|keine genehmigung|nicht notig|nicht notwendig|nicht erforderlich|finger weg|zuruckgewiesen|untersagt|nicht machen|nicht ausfuhren|nicht durchfuhren|nicht umsetzen|mach das nicht|mach es nicht|machen sie das nicht",
    ),
    (
        Kind::No,
        "je napprouve pas|napprouvez pas|nest pas approuve|mauvaise idee|refuse|refusee|je refuse|cest refuse|rejete|je rejette|annulez|annule|annulez tout|arretez|arrete|surtout pas|certainement pas|absolument pas|hors de question|pas question|pas daccord|je ne suis pas daccord|ne le faites pas|ne faites pas|ne faites rien|ne fais pas|ne le fais pas|ny touchez pas|ne touchez pas|ne touchez a rien|nexecutez pas|ne lancez pas|ne validez pas|ne procedez pas|je mOppose|je moppose|non merci|pas necessaire|inutile|laissez tomber|laisse tomber|refus",
    ),
    (
        Kind::No,
        "mala idea|no lo autorizo|no estoy conforme|rechazado|rechazada|rechazo|lo rechazo|denegado|denegada|deniego|cancelar|cancela|cancelalo|cancelelo|cancelado|detener|deten|detente|detenganlo|de ninguna manera|en absoluto|ni hablar|ni en broma|no lo hagas|no lo haga|no lo hagan|no hagas|no haga|no lo apruebo|no apruebo|no aprobado|no autorizo|no autorizado|no procede|no proceda|no procedas|no estoy de acuerdo|no de acuerdo|mejor no|no es necesario|no hace falta|dejalo|dejelo|no gracias|no toques|no toque",
    ),
    (
        Kind::No,
        "keur dit niet goed|keur het niet goed|keur ik niet goed|keur dit af|slecht idee|dit mag niet|dat mag niet|mag niet|afgewezen|afgekeurd|wijs af|ik wijs dit af|ik wijs het af|geweigerd|ik weiger|weiger|annuleren|annuleer|annuleer dit|afbreken|stoppen|niet doen|doe dat niet|doe het niet|doe dit niet|niet uitvoeren|voer niet uit|liever niet|beter niet|niet akkoord|ik ga niet akkoord|ga niet akkoord|niet goedgekeurd|geen toestemming|geen goedkeuring|geen akkoord|zeker niet|absoluut niet|beslist niet|geen sprake van|laat maar|laat het maar|laat zo|niet nodig|nee dank je|nee bedankt|blijf eraf",
    ),
    (Kind::NoAtStart, "no|nein|non|nee|neen|noo|nooo"),
    (
        Kind::Forbids,
        "dont|do not|please dont|please do not|pls dont|plz dont|dont you dare|you may not|you must not|mustnt|must not|never ever",
    ),
    (
        Kind::Harmless,
        "dont know|do not know|dont think|do not think|dont forget|do not forget|dont worry|do not worry|dont mind|do not mind|dont see|dont hesitate|do not hesitate|dont understand|do not understand|dont have|do not have|dont get|dont believe|dont care|dont remember|no idea|no clue|no rush|no hurry|no update|no news|no response|no reply|no answer|no change|no longer|no one|nobody|nothing yet|no luck|no luck yet|no error|no errors|no difference",
    ),
    (
        Kind::Negates,
        "not|ne|isnt|arent|wasnt|wont|cant|cannot|couldnt|wouldnt|shouldnt|doesnt|didnt|hasnt|havent|without|none|neither|nor|nicht|kein|keine|keinen|keiner|keinem|nichts|niemals|nie|ohne|pas|jamais|rien|aucun|aucune|sans|nunca|jamas|ningun|ninguna|nada|sin|tampoco|niet|geen|nooit|niets|niemand|zonder|unable",
    ),
    // Strings attached.
    (
        Kind::Condition,
        "if|unless|provided|provided that|providing|as long as|so long as|assuming|once|after|before|when|whenever|until|till|but|except|however|although|though|only if|only when|only after|on condition|on the condition|subject to|depends|depending|in case|otherwise|first check|check first|make sure|ensure|be careful|careful|carefully|double check|pending|should she|should he|should they|should it|with the exception",
    ),
    (
        Kind::Condition,
        "wenn|falls|sofern|sobald|solange|aber|auszer|ausser|auser|es sei denn|vorausgesetzt|unter der bedingung|unter der voraussetzung|nachdem|bevor|ehe|jedoch|allerdings|erst wenn|erst nach|erst mal|erst prufen|vorher|zuerst|bitte prufen|bitte erst|anschliessend|danach|vorbehaltlich|je nachdem|bis",
    ),
    (
        Kind::Condition,
        "sauf|mais|a condition|a la condition|quand|lorsque|des que|apres|avant|jusqua|cependant|toutefois|pourtant|pourvu|tant que|sous reserve|seulement si|uniquement si|dabord|verifiez|verifier|assurez vous|attention|au cas ou|excepte|hormis|une fois",
    ),
    (
        Kind::Condition,
        "si|salvo|excepto|pero|siempre que|siempre y cuando|cuando|despues|antes|hasta|a condicion|con la condicion|a menos que|en cuanto|sin embargo|aunque|primero|asegurate|asegurese|verifica|verifique|comprueba|cuidado|con cuidado|en caso|una vez|depende",
    ),
    (
        Kind::Condition,
        "als|mits|tenzij|maar|zolang|zodra|nadat|voordat|totdat|behalve|echter|hoewel|op voorwaarde|onder voorwaarde|eerst|wel eerst|pas|pas na|pas als|controleer|check eerst|zorg dat|let op|voorzichtig|voor zover|afhankelijk|indien|tot|mocht",
    ),
    (
        Kind::Part,
        "only|just|first|second|third|fourth|last|the first|first one|first two|one|two of|part|partly|partially|some|some of|half|most|most of|apart from|other than|rest|remaining|others|either|one of|nur|lediglich|blosz|bloss|ersten|erster|erste|zweiten|zweite|dritten|dritte|letzten|letzte|teil|teile|teilweise|einen|manche|einige|den rest|seulement|uniquement|juste|premiere|premier|premieres|deuxieme|seconde|second|troisieme|derniere|dernier|partie|une partie|certaines|certains|moitie|solo|solamente|unicamente|primer|primera|primeros|segundo|segunda|tercero|tercera|ultimo|ultima|parte|algunos|algunas|mitad|alleen|enkel|slechts|eerste|tweede|derde|laatste|deel|gedeeltelijk|sommige|enkele",
    ),
    (
        Kind::Later,
        "tomorrow|later|tonight|tmrw|next week|next month|monday|tuesday|wednesday|thursday|friday|saturday|sunday|weekend|this afternoon|this evening|after hours|out of hours|end of day|eod|eob|overnight|another time|another day|in an hour|in a bit|in a minute|soon|eventually|ill|i will|i am going to|im going to|let me|ill check|ill look|will check|will look|will do|will have|checking|looking|look into|looking into|taking a look|have a look|take a look|reviewing|review|on my list|im on it|im on holiday|out of office|ooo|away|busy|in a meeting|call me|ring me|ping me|back soon|brb",
    ),
    (
        Kind::Later,
        "morgen|spater|heute abend|heute nacht|nachste woche|montag|dienstag|mittwoch|donnerstag|freitag|samstag|sonntag|wochenende|nach feierabend|nachher|gleich|ich schaue|schaue|schau|ich prufe|ich sehe|ich kummere|melde mich|ich melde|bin im meeting|im urlaub|abwesend|mittag|nachmittag|demain|plus tard|ce soir|cette nuit|semaine prochaine|lundi|mardi|mercredi|jeudi|vendredi|samedi|dimanche|week end|je regarde|je vais|je verifie|jy regarde|je reviens|en reunion|en conge|cet apres midi|bientot|tantot|manana|mas tarde|esta noche|esta tarde|proxima semana|semana que viene|lunes|martes|miercoles|jueves|viernes|sabado|domingo|fin de semana|luego|voy a|lo miro|lo reviso|reviso|dejame|dejeme|estoy en una reunion|vacaciones|morgenochtend|straks|vanavond|vannacht|volgende week|maandag|dinsdag|woensdag|donderdag|vrijdag|zaterdag|zondag|ik kijk|ik ga|ik check|kijk er|ik bekijk|ik zal|ik kom|in vergadering|vakantie|vanmiddag|zometeen",
    ),
    (
        Kind::Wait,
        "yet|wait|waiting|awaiting|please wait|hold on|hold off|hang on|hold|hold it|on hold|not yet|not now|not today|not so fast|pause|postpone|postponed|delay|give me|give us|one moment|one sec|a sec|second please|warte|warten|warten sie|moment|moment mal|momentchen|noch nicht|nicht jetzt|nicht heute|abwarten|verschieben|pausieren|attends|attendez|un instant|un moment|pas encore|pas maintenant|pas aujourdhui|patientez|reportez|espera|espere|esperen|un segundo|un minuto|todavia no|aun no|ahora no|hoy no|aguanta|pausa|wacht|wacht even|even wachten|momentje|nog niet|niet nu|niet vandaag|uitstellen|ogenblik",
    ),
    (
        Kind::Hedge,
        "right|would|i would|id|in principle|in theory|theoretically|tentatively|provisionally|conditionally|by mistake|by accident|accidentally|mistake|ignore|disregard|scrap that|correction|oops|nevermind|never mind|actually|grundsatzlich|prinzipiell|im prinzip|eigentlich|en principe|en principio|in principe|eigenlijk|en fait|en realidad|maybe|perhaps|probably|possibly|i think|i guess|i suppose|not sure|unsure|might|could be|should be|should be ok|should be fine|seems|i assume|i believe|presumably|hopefully|dunno|idk|hmm|hm|hmmm|umm|um|erm|uh|tbh|i reckon|kind of|sort of|whatever|if you say so|if you must|if you think so|i hope|not convinced|doubt|dubious|worried|concerned|vielleicht|wahrscheinlich|vermutlich|eventuell|evtl|ich denke|ich glaube|denke ich|glaube ich|unsicher|nicht sicher|keine ahnung|musste|sollte|konnte|hoffentlich|na ja|naja|meinetwegen|peut etre|peut-etre|probablement|sans doute|je pense|je crois|je suppose|pas sur|pas sure|pas certain|jespere|bof|mouais|quizas|quiza|tal vez|a lo mejor|probablemente|posiblemente|creo|creo que|supongo|no estoy seguro|no estoy segura|no se|espero que|misschien|waarschijnlijk|vermoedelijk|ik denk|denk ik|ik geloof|weet niet|niet zeker|hopelijk|zou moeten|mogelijk|tja",
    ),
    (
        Kind::Question,
        "what|why|which|who|whose|how|where|can you|could you|can we|could we|can someone|could someone|would you|will you|does it|does this|is it|is this|is that|is she|is he|are you|are they|are we|did you|have you|do we|do you|do i|should we|should i|wondering|question|explain|clarify|was ist|was passiert|warum|wieso|weshalb|welche|welcher|welches|wer|wie|wann|wo|kannst du bitte|konnten sie|konntest du|konnen wir|ist das|ist es|sind sie|hast du|haben sie|muss ich|frage|quoi|pourquoi|quel|quelle|quels|quelles|qui|comment|combien|est ce que|est-ce que|pouvez vous|pouvez-vous|peux tu|pourriez vous|avez vous|as tu|question|expliquez|que pasa|por que|cual|cuales|quien|como|donde|cuanto|podrias|podria|puedes decirme|puede decirme|pregunta|explica|explique|wat|waarom|welke|wie|hoe|waar|wanneer|kun je|kunt u|kan je|zou je|zou u|heb je|heeft u|is dit|is dat|vraag|leg uit",
    ),
    (
        Kind::Others,
        "he said|she said|they said|says|said|told|tells|customer|client|user says|manager|boss|director|ceo|he|she|they|his|hers|somebody|someone|everyone|anyone else|on behalf|according to|quote|quoting|forwarded|fwd|fw|see below|as below|already|yesterday|last week|last time|earlier|previously|other ticket|another ticket|different ticket|wrong ticket|wrong person|ask|asked|asking|my colleague|colleague|not my ticket|not mine|er sagt|sie sagt|sagte|sagt|gesagt|kunde|kundin|chef|chefin|vorgesetzter|kollege|kollegin|laut|gestern|bereits|schon|weitergeleitet|anderes ticket|falsches ticket|fragen|frag|il dit|elle dit|dit que|a dit|le client|cliente|mon chef|directeur|collegue|hier|deja|selon|transfere|autre ticket|demandez|demande|dice|dijo|ha dicho|el cliente|la clienta|mi jefe|jefe|gerente|companero|ayer|ya aprobado|ya fue|segun|reenviado|otro ticket|pregunta a|zegt|zei|gezegd|de klant|klant|baas|manager|directeur|collega|gisteren|al goedgekeurd|reeds|volgens|doorgestuurd|ander ticket|vraag het",
    ),
    (
        Kind::More,
        "also|and also|additionally|in addition|plus|as well|instead|rather|change|changed|use|using|add|adding|include|including|modify|edit|replace|rename|then also|another|different|different way|differently|alternatively|alternative|auch|auszerdem|ausserdem|zusatzlich|zusaetzlich|statt|stattdessen|anstatt|andere|anderen|anders|andern|andert|ergänzen|erganzen|hinzufugen|und noch|aussi|egalement|en plus|de plus|plutot|au lieu|changez|modifiez|ajoutez|remplacez|autre|autrement|tambien|ademas|en vez|en lugar|cambia|cambie|anade|anada|agrega|agregue|modifica|modifique|reemplaza|otro|otra|ook|bovendien|daarnaast|in plaats|liever|wijzig|verander|voeg|toevoegen|vervang|andere",
    ),
    (
        Kind::Report,
        "it is|it has|i have|we have|i am|we are|i can|we can|i did|we did|it does|it was|cest ca|cest le cas|habe ich|hab ich|ist es|bin ich|kann ich|haben wir|sind wir|asi es|eso es|lo es|lo tengo|dat klopt|klopt|heb ik|hebben we|is zo|stimmt|correct|exactly|genau|works|working|worked|fixed|resolved|solved|sorted|broken|still|again|issue|issues|error|errors|problem|problems|fails|failed|failing|failure|locked|happens|happened|tried|try|tested|noticed|found|seems|appears|update please|any update|any news|status|funktioniert|geht wieder|gelost|behoben|wieder|immer noch|nach wie vor|fehler|kaputt|stand der dinge|marche|fonctionne|resolu|resolue|toujours|encore|probleme|problemes|erreur|panne|funciona|resuelto|solucionado|arreglado|sigue|error|errores|problema|problemas|fallo|falla|werkt|opgelost|gelukt|nog steeds|weer|fout|probleem|problemen|storing",
    ),
    (
        Kind::Asks,
        "please confirm|pls confirm|get it approved|get this approved|get approved|will be approved|please approve|pls approve|plz approve|to approve|can approve|could approve|must approve|should approve|has to approve|have to approve|needs to approve|for approval|for your approval|needs approval|need approval|need your approval|awaiting approval|waiting for approval|approval needed|approval required|approval request|requesting approval|approval from|who approves|someone approve|somebody approve|needs to be approved|to be approved|approve or deny|approve or reject|yes or no|bitte genehmigen|bitte freigeben|bitte um freigabe|bitte um genehmigung|zur freigabe|zur genehmigung|muss genehmigen|freigabe notig|warten auf freigabe|genehmigung erforderlich|veuillez approuver|merci dapprouver|merci de valider|veuillez valider|pour approbation|a valider|a approuver|en attente de validation|en attente dapprobation|doit valider|doit approuver|por favor apruebe|por favor aprobar|para aprobar|para su aprobacion|pendiente de aprobacion|necesita aprobacion|debe aprobar|tiene que aprobar|graag goedkeuren|gelieve goed te keuren|ter goedkeuring|moet goedkeuren|goedkeuring nodig|wacht op goedkeuring|wachten op akkoord",
    ),
    (
        Kind::Irony,
        "yeah right|oh sure|sure sure|yeah sure|as if|what could possibly go wrong|what could go wrong|worked so well|because that worked|brilliant|genius|great job|well done|nice try|very funny|lol|lmao|haha|hahaha|rofl|good luck|good luck with that|oh great|great another|wonderful another|just great|just what i needed|thanks for nothing|dream on|in your dreams|when pigs fly|when hell freezes|yeah yeah|ja klar|na toll|na super|super idee|tolle idee|ganz toll|ja genau|schon wieder|viel gluck|wers glaubt|ben voyons|mais bien sur|cest ca oui|quelle bonne idee|super idee|bravo|bonne chance|et puis quoi encore|genial otra|si! claro como no|si claro como no|claro como no|que gran idea|que buena idea|lo que faltaba|jaja|jajaja|mucha suerte|ja hoor|ja vast|vast wel|goed bezig|lekker dan|wat een goed idee|geweldig idee|succes ermee|haha",
    ),
    (
        Kind::Polite,
        "the change|the changes|this change|these changes|let me know|let us know|let me know when done|let me know when its done|let me know when it is done|let me know when you are done|let me know when complete|let me know when completed|let me know once done|let me know once complete|let me know how it goes|keep me posted|keep me updated|report back|when ready|when youre ready|when you are ready|whenever youre ready|whenever you are ready|at your convenience|when possible|as soon as possible|as soon as you can|that would be great|that would be good|would be great|no issue|no issues|no concerns|no complaints|unlock|clear|queue|mfa|vpn|laptop|computer|pc|server|router|phone|outlook|teams|windows|consider|please|pls|plz|thanks|thank you|thanks a lot|many thanks|thank you very much|thx|ty|cheers|hi|hello|hey|dear|all|team|rallied|agent|bot|this|that|it|these|those|them|the|a|an|and|with|for|to|of|on|in|from|me|us|my|our|you|your|we|i|im|is|are|be|been|so|then|now|today|asap|straight away|right away|right now|immediately|at once|both|everything|every|all of it|all of them|all of these|all three|all steps|all the steps|steps|step|plan|action|actions|change request|request|proposal|proposed|as proposed|as planned|as described|as listed|as discussed|above|the above|listed|ticket|password|reset|account|user|mailbox|printer|spooler|restart|reboot|service|email|reply|note|license|licence|group|access|her|him|end|side|here|kind regards|no problem|no problems|no worries|not a problem|no bother|good|great|perfect|excellent|nice|cool|super|awesome|morning|good morning|good afternoon|good evening|from my side|from my end|on my side|by me|with me|ahead|with it|with this|with that|with these|with the plan|with the steps|have|has|had|got|can|may|will be|it is|sir|mate|guys|folks|very|much|really|totally|fully|completely|100%|quickly|work|job|can be done|be done|done|well|out|up|off|via|as|at|do|too",
    ),
    (
        Kind::Polite,
        "bitte|danke|vielen dank|dankeschon|danke dir|danke schon|besten dank|hallo|guten morgen|guten tag|moin|servus|gruss|grusse|lg|vg|mfg|und|die|der|das|den|dem|des|es|so|dann|jetzt|sofort|gleich jetzt|heute|alle|alles|beide|beides|beiden|alle schritte|alle drei|schritte|schritt|plan|massnahmen|massnahme|anderungen|vorschlag|vorgeschlagen|wie vorgeschlagen|wie beschrieben|wie geplant|wie besprochen|passwort|kennwort|konto|benutzer|drucker|neustart|zurucksetzen|ticket|antrag|anfrage|von mir|von meiner seite|meinerseits|meiner|fur|mich|mir|uns|ich|du|sie|ihr|wir|ist|sind|kann|kannst|konnen|werden|wird|mit|zu|zum|zur|im|in|an|auf|hiermit|damit|dafur|kein problem|keine probleme|kein thema|gut|super|perfekt|prima|toll|sehr|sehr gut|bin|habe|hab|mal|ruhig|einfach|umgehend|schnell|bitteschon|zusammen|team|erteilt|erledigen|erledigt",
    ),
    (
        Kind::Polite,
        "merci|merci beaucoup|merci bien|svp|stp|sil vous plait|sil te plait|bonjour|bonsoir|salut|cordialement|bien a vous|le|la|les|des|du|de|et|a|au|aux|en|pour|moi|nous|vous|tu|je|ce|ca|cela|cette|ces|tout|toutes|tous|tous les points|toutes les etapes|etapes|etape|plan|proposition|demande|comme propose|comme prevu|ci dessus|maintenant|tout de suite|immediatement|aujourdhui|mot de passe|compte|utilisateur|imprimante|reinitialisation|redemarrage|ticket|pas de probleme|pas de problemes|pas de souci|pas de soucis|aucun probleme|bien|tres bien|super|parfait|nickel|est|sont|cest|suis|avez|mon|ma|mes|votre|notre|equipe|avec|par|y|faire|les deux|les trois|deux|trois|bonne journee|de mon cote",
    ),
    (
        Kind::Polite,
        "por favor|gracias|muchas gracias|mil gracias|hola|buenos dias|buenas tardes|buenas|saludos|un saludo|el|la|los|las|lo|y|de|del|al|con|para|por|mi|mis|su|tu|me|nos|te|le|se|es|esta|estan|este|esto|estos|ese|eso|todo|todos|todas|todos los pasos|los pasos|pasos|paso|ambos|ambas|los dos|los tres|plan|propuesta|propuesto|como propuesto|solicitud|ahora|ahora mismo|ya|hoy|enseguida|cuanto antes|inmediatamente|contrasena|cuenta|usuario|impresora|reinicio|restablecer|ticket|sin problema|sin problemas|no hay problema|ningun problema|bien|muy bien|perfecto|genial|estupendo|excelente|equipo|parte|por mi parte|de mi parte|puede|puedes|pueden|hacer|hacerlo|tiene|tienes|tienen|aprobacion|doy|mi ok|que|a",
    ),
    (
        Kind::Polite,
        "alstublieft|alsjeblieft|aub|ajb|svp|bedankt|dank|dank je|dank u|dankjewel|dank je wel|hartelijk dank|hoi|hallo|goedemorgen|goedemiddag|beste|groet|groeten|gr|mvg|de|het|en|dit|dat|die|deze|alle|alles|beide|allebei|alle stappen|stappen|stap|plan|voorstel|zoals voorgesteld|zoals gepland|voorgesteld|verzoek|aanvraag|nu|meteen|direct|vandaag|zo snel mogelijk|wachtwoord|account|gebruiker|printer|herstart|resetten|ticket|geen probleem|geen punt|geen problemen|goed|heel goed|top|super|perfect|mooi|je|jij|u|ik|wij|we|mij|mijn|ons|is|zijn|heb|hebt|heeft|kan|kun|kunt|kunnen|worden|wordt|met|voor|van|op|in|aan|bij|te|om|er|maar even|even|gewoon|gerust|vanuit mij|wat mij betreft|bij deze|hierbij|verder|hoor|dus|team",
    ),
];

/// Emoji and signs, by what they say.
pub const SIGNS: &[(Kind, &str)] = &[
    (Kind::Yes, "👍✅👌✔☑🆗🟢👏"),
    (Kind::No, "👎❌🚫⛔🛑🙅✖❎"),
    (Kind::Wait, "✋⏳⏸⌛🤚"),
    (Kind::Irony, "🙄😂🤣😏🤡😬😆"),
    (Kind::Hedge, "🤔🤷😕😐🤨😟😳👀❓❔"),
    (Kind::Polite, "🙂😀😊🙏😁🎉❤☺😃😄🚀💯🙌✨💪😉🎯"),
];
