"""The forms of tokens that services give out: a beginning of its own, and what follows it.

From the services' documentation and the list of gitleaks (https://github.com/gitleaks/gitleaks, MIT, July 2026), but
for forms that are told only by the name of the service near them. Every repetition is bounded, so that a search takes
time in proportion to the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

HEX, LOW, WORD = "[0-9a-f]", "[0-9a-z]", "[A-Za-z0-9]"
FORMS: Mapping[str, str] = {
    start: form
    for form, starts in {
        r"\w{82}": "github_pat_",
        rf"{WORD}{{36}}": "ghp_ gho_ ghu_ ghs_ npm_ pnu_",
        rf"{WORD}{{36,76}}": "ghr_",
        r"[\w-]{20,300}(?:\.[\w.-]{2,20})?": "glpat- gldt- glrt-",
        r"[\w-]{20,70}": "glft- glffct- glsoat- glptt- glimt- glcbt- gloas-",
        r"[\w-]{50,1024}": "glagent-",
        rf"{WORD}{{32}}": "_gitlab_session= ico- AKID",
        r"[\w-]{50,1000}": "pypi-AgE",
        rf"{HEX}{{48}}": "rubygems_",
        r"[\w-]{27}": "dckr_pat_",
        r"[\w-]{36,64}": "HRKU-",
        rf"{HEX}{{64}}": "dop_v1_ doo_v1_ dor_v1_ s-s4t2ud- s-s4t2af- sntryu_",
        r"[\w-]{43}": "fo1_ sq0csp-",
        r"[A-Za-z0-9+/]{100,4000}={0,3}": "fm1r_ fm1a_ fm2_",
        r"[A-Za-z0-9]{60}": "CLOJARS_",
        rf"{WORD}{{56}}": "cmVmdGtu",
        r"[A-Z0-9]{26}(?![A-Z0-9])": "API-",
        r"[\w-]{48}": "tk-us-",
        r"(?:[0-9a-fA-F]{16}_|local_)?[0-9a-fA-F]{40}": "sgp_",
        rf"{WORD}{{16}}": "sm_aat_ sm_pat_ sm_sat_",
        r"[\w-]{24,200}": "hvs.",
        r"[\w-]{100,300}": "hvb.",
        rf"{HEX}{{40}}": "sbp_ pul-",
        r"[\w=.-]{32,64}": "pscale_tkn_ pscale_pw_ pscale_oauth_",
        rf"{WORD}{{43}}": "dp.pt. secret_ phc_",
        r"[0-9A-Z]{58}": "AGE-SECRET-KEY-1",
        r"[\w-]{20,60}": "tskey-auth-",
        rf"{WORD}{{32}}(?=$|[^A-Za-z0-9])": "cio",
        r"[A-Z0-9]{16}(?![A-Z0-9])": "AKIA ASIA ABIA",
        rf"{WORD}{{12,26}}": "LTAI",
        r"[A-Za-z0-9+/]{109,269}={0,2}": "ABSK",
        r"YmVkcm9jay5hbWF6b25hd3MuY29t[A-Za-z0-9+/=]{0,2000}": "bedrock-api-key-",
        rf"{HEX}{{24}}-{HEX}{{146}}": "v1.0-",
        rf"{WORD}{{38}}(?![A-Za-z0-9])": "4b1d",
        r"[\w-]{35}": "AIza",
        r"[\w-]{28}": "GOCSPX-",
        r"[\w-]{30,500}": "ya29.",
        r"[\w-]{40,200}": "1//0",
        rf"{HEX}{{32}}(?:-\d)?": "dapi",
        r"[A-Za-z0-9+/]{86}==": "AccountKey=",
        r"[A-Za-z0-9+/]{43}=": "SharedAccessKey=",
        r"[\w-]{20,200}": "sk-ant-",
        r"[\w-]{20,250}": "sk- xapp-",
        r"[A-Za-z]{34}": "hf_ api_org_",
        rf"{WORD}{{52}}": "gsk_",
        rf"{WORD}{{37,40}}": "r8_",
        rf"{WORD}{{48}}": "pplx-",
        rf"{WORD}{{80}}": "xai-",
        r"[\w-]{60,70}": "nvapi-",
        r"[\w-]{10,250}": "xoxb- xoxp- xoxa- xoxe- xoxo- xoxr- xoxs-",
        r"[bp]-\d-[A-Z0-9]{100,250}": "xoxe.xox",
        rf"{WORD}{{10,120}}": "sk_live_ sk_test_ sk_prod_ rk_live_ rk_test_ rk_prod_",
        r"[A-Za-z0-9+/=]{32,64}": "whsec_",
        r"[\w-]{20,24}\.[\w-]{39,50}": "SG.",
        rf"{HEX}{{32}}": "key-",
        rf"{HEX}{{64}}-{WORD}{{16}}": "xkeysib-",
        r"[0-9a-fA-F]{32}": "shpat_ shpss_ shpca_ shppa_",
        r"[0-9a-fA-F]{40}": "shippo_live_ shippo_test_",
        r"[\w=-]{43}": "duffel_test_ duffel_live_",
        rf"{WORD}{{54}}": "EZAK EZTK",
        r"(?:_TEST)?-[0-9a-hA-H]{12,40}(?:-X)?": "FLWSECK",
        r"[\w=-]{64}": "fio-u-",
        rf"{LOW}{{32}}": "p8e-",
        rf"{LOW}{{70}}": "rdme_",
        r"[A-Za-z0-9+/]{200,2000}={0,3}": "ops_eyJ",
        r"[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}": "A3-",
        rf"{WORD}{{100,400}}": "EAAM EAAC",
        r"[A-Za-z0-9+/]{70,400}={0,2}": "eyJrIjoi",
        r"[\w+/=-]{60,4000}": "ZXlK",
        r"[\w-]{22}": "sq0atp-",
        r"[\w-]{60}": "EAAA",
        rf"{WORD}{{20,250}}": "EAACEdEose0cBA",
        rf"{WORD}{{40}}": "lin_api_",
        rf"{WORD}{{46}}": "ntn_",
        r"[\w=-]{100,250}": "ATATT3",
        r"[\w-]{40,60}": "figd_",
        rf"{HEX}{{24}}-{HEX}{{34}}": "PMAK-",
        rf"{WORD}{{32}}_[0-9A-Fa-f]{{8}}": "glsa_",
        r"[A-Za-z0-9+/=]{32,400}": "glc_",
        r"[A-Z0-9]{27}": "NRAK-",
        r"[\w+/=]{60,400}": "sntrys_",
        r"[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}": "dt0c01.",
        r"[\w-]{130,160}": "sl.",
    }.items()
    for start in starts.split()
}
# Those that begin with nothing of their own, by what must occur in the text.
OTHERS: tuple[tuple[str, str], ...] = (
    ("hooks.slack.com", r"https://hooks\.slack\.com/services/T\w{6,12}/B\w{6,12}/\w{20,30}"),
    ("/api/webhooks/", r"https://(?:ptb\.|canary\.)?discord(?:app)?\.com/api/webhooks/\d{17,20}/[\w-]{60,80}"),
    (":AA", r"(?<![A-Za-z0-9:])\d{8,10}:AA[\w-]{33}(?![\w-])"),  # Telegram
    ("at.", rf"(?<![A-Za-z0-9])[ps]at\.[\w-]{{22}}\.[0-9a-zA-Z]{{24}}\.{WORD}{{20}}"),  # Harness
    ("_mmk", rf"(?<![A-Za-z0-9]){WORD}{{6}}_{WORD}{{29}}_mmk(?!\w)"),  # MaxMind
    (
        ".acc",
        r"(?<![A-Za-z0-9])(?:sc|ext|scauth|authress)_[a-z0-9]{5,30}\.[a-z0-9]{4,6}\.acc[_-][a-z0-9-]{10,32}\.[a-z0-9+/_=-]{30,120}",
    ),
    (
        ".webhook.office.com/webhookb2/",
        r"https://[a-z0-9]{1,60}\.webhook\.office\.com/webhookb2/[a-z0-9@/-]{60,300}(?i:/IncomingWebhook/[a-z0-9/-]{60,200})",
    ),
    ("pat", rf"(?<![A-Za-z0-9])pat{WORD}{{14}}\.{HEX}{{64}}"),  # Airtable
    ("-us", rf"(?<![0-9a-z]){HEX}{{32}}-us\d{{1,2}}(?!\w)"),  # Mailchimp
    ("Q~", r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{31,34}(?![\w~.-])"),  # Microsoft Entra
    (".atlasv1.", rf"(?<![A-Za-z0-9]){WORD}{{14}}\.atlasv1\.[\w=-]{{60,70}}"),  # Terraform
    ("AC", rf"(?<![A-Za-z0-9])AC{HEX}{{32}}(?![A-Za-z0-9])"),  # Twilio
    ("SK", r"(?<![A-Za-z0-9])SK[0-9a-fA-F]{32}(?![A-Za-z0-9])"),
    ("eyJ", r"(?<![\w-])eyJ[\w=-]{8,4000}\.[\w=-]{8,8000}(?:\.[\w=-]{0,2000}){0,3}"),  # JSON Web Tokens (RFC 7519)
)


WORDS = frozenset(("sk-", "cio", "SG.", "sl.", "secret_", "LTAI", "AKID", "EAAA", "hvs.", "gldt-", "glrt-", "pul-"))


@cache
def _patterns() -> tuple[dict[str, re.Pattern[str]], dict[str, re.Pattern[str]]]:
    return (
        {start: re.compile(re.escape(start) + rest) for start, rest in FORMS.items()},
        {must: re.compile(pattern) for must, pattern in OTHERS},
    )


def tokens(text: str) -> Iterator[tuple[int, int]]:
    """Where tokens begin and end. What begins like a word, and has no digit, is one."""
    formed, others = _patterns()
    for start, pattern in formed.items():
        at = text.find(start)
        while at >= 0:
            m = None if at and text[at - 1].isascii() and text[at - 1].isalnum() else pattern.match(text, at)
            if m and (start not in WORDS or any(map(str.isdigit, m.group()[len(start) :]))):
                yield m.span()
            at = text.find(start, m.end() if m else at + 1)
    for must, pattern in others.items():
        if must in text:
            yield from (m.span() for m in pattern.finditer(text))
