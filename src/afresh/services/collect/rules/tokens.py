"""The forms of tokens that services give out: a beginning of its own, and what follows it.

From the services' documentation and the list of gitleaks (https://github.com/gitleaks/gitleaks, MIT, July 2026), but
for forms that are told only by the name of the service near them. Every repetition is bounded, so that a search takes
time in proportion to the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

HEX, LOW, WORD = "[0-9a-f]", "[0-9a-z]", "[A-Za-z0-9]"
FORMS: dict[str, str] = {
    # code, packages, machines
    "github_pat_": r"\w{82}",
    "ghp_": rf"{WORD}{{36}}",
    "gho_": rf"{WORD}{{36}}",
    "ghu_": rf"{WORD}{{36}}",
    "ghs_": rf"{WORD}{{36}}",
    "ghr_": rf"{WORD}{{36,76}}",
    **dict.fromkeys(("glpat-", "gldt-", "glrt-"), r"[\w-]{20,300}(?:\.[\w.-]{2,20})?"),
    **dict.fromkeys(("glft-", "glffct-", "glsoat-", "glptt-", "glimt-", "glcbt-", "gloas-"), r"[\w-]{20,70}"),
    "glagent-": r"[\w-]{50,1024}",
    "_gitlab_session=": rf"{WORD}{{32}}",
    "npm_": rf"{WORD}{{36}}",
    "pypi-AgE": r"[\w-]{50,1000}",
    "rubygems_": rf"{HEX}{{48}}",
    "dckr_pat_": r"[\w-]{27}",
    "HRKU-": r"[\w-]{36,64}",
    **dict.fromkeys(("dop_v1_", "doo_v1_", "dor_v1_"), rf"{HEX}{{64}}"),
    "fo1_": r"[\w-]{43}",
    **dict.fromkeys(("fm1r_", "fm1a_", "fm2_"), r"[A-Za-z0-9+/]{100,4000}={0,3}"),
    "CLOJARS_": r"[A-Za-z0-9]{60}",
    "cmVmdGtu": rf"{WORD}{{56}}",
    "pnu_": rf"{WORD}{{36}}",
    "ico-": rf"{WORD}{{32}}",
    "API-": r"[A-Z0-9]{26}(?![A-Z0-9])",
    "tk-us-": r"[\w-]{48}",
    "sgp_": r"(?:[0-9a-fA-F]{16}_|local_)?[0-9a-fA-F]{40}",
    **dict.fromkeys(("sm_aat_", "sm_pat_", "sm_sat_"), rf"{WORD}{{16}}"),
    "hvs.": r"[\w-]{24,200}",
    "hvb.": r"[\w-]{100,300}",
    "sbp_": rf"{HEX}{{40}}",
    "pscale_tkn_": r"[\w=.-]{32,64}",
    "pscale_pw_": r"[\w=.-]{32,64}",
    "pscale_oauth_": r"[\w=.-]{32,64}",
    "dp.pt.": rf"{WORD}{{43}}",
    "pul-": rf"{HEX}{{40}}",
    "AGE-SECRET-KEY-1": r"[0-9A-Z]{58}",
    "tskey-auth-": r"[\w-]{20,60}",
    "cio": rf"{WORD}{{32}}(?=$|[^A-Za-z0-9])",
    # clouds
    "AKIA": r"[A-Z0-9]{16}(?![A-Z0-9])",
    "ASIA": r"[A-Z0-9]{16}(?![A-Z0-9])",
    "ABIA": r"[A-Z0-9]{16}(?![A-Z0-9])",
    "LTAI": rf"{WORD}{{12,26}}",
    "AKID": rf"{WORD}{{32}}",
    "ABSK": r"[A-Za-z0-9+/]{109,269}={0,2}",
    "bedrock-api-key-": r"YmVkcm9jay5hbWF6b25hd3MuY29t[A-Za-z0-9+/=]{0,2000}",
    "v1.0-": rf"{HEX}{{24}}-{HEX}{{146}}",
    "4b1d": rf"{WORD}{{38}}(?![A-Za-z0-9])",
    "AIza": r"[\w-]{35}",
    "GOCSPX-": r"[\w-]{28}",
    "ya29.": r"[\w-]{30,500}",
    "1//0": r"[\w-]{40,200}",
    "dapi": rf"{HEX}{{32}}(?:-\d)?",
    "AccountKey=": r"[A-Za-z0-9+/]{86}==",
    "SharedAccessKey=": r"[A-Za-z0-9+/]{43}=",
    # models
    "sk-ant-": r"[\w-]{20,200}",
    "sk-": r"[\w-]{20,250}",
    "hf_": r"[A-Za-z]{34}",
    "api_org_": r"[A-Za-z]{34}",
    "gsk_": rf"{WORD}{{52}}",
    "r8_": rf"{WORD}{{37,40}}",
    "pplx-": rf"{WORD}{{48}}",
    "xai-": rf"{WORD}{{80}}",
    "nvapi-": r"[\w-]{60,70}",
    # messages, payments, products
    **dict.fromkeys(("xoxb-", "xoxp-", "xoxa-", "xoxe-", "xoxo-", "xoxr-", "xoxs-"), r"[\w-]{10,250}"),
    "xoxe.xox": r"[bp]-\d-[A-Z0-9]{100,250}",
    "xapp-": r"[\w-]{20,250}",
    **dict.fromkeys(
        (f"{key}_{stage}_" for key in ("sk", "rk") for stage in ("live", "test", "prod")), rf"{WORD}{{10,120}}"
    ),
    "whsec_": r"[A-Za-z0-9+/=]{32,64}",
    "SG.": r"[\w-]{20,24}\.[\w-]{39,50}",
    "key-": rf"{HEX}{{32}}",
    "xkeysib-": rf"{HEX}{{64}}-{WORD}{{16}}",
    **dict.fromkeys(("shpat_", "shpss_", "shpca_", "shppa_"), r"[0-9a-fA-F]{32}"),
    **dict.fromkeys(("shippo_live_", "shippo_test_"), r"[0-9a-fA-F]{40}"),
    **dict.fromkeys(("duffel_test_", "duffel_live_"), r"[\w=-]{43}"),
    **dict.fromkeys(("EZAK", "EZTK"), rf"{WORD}{{54}}"),
    "FLWSECK": r"(?:_TEST)?-[0-9a-hA-H]{12,40}(?:-X)?",
    "fio-u-": r"[\w=-]{64}",
    "p8e-": rf"{LOW}{{32}}",
    "rdme_": rf"{LOW}{{70}}",
    "ops_eyJ": r"[A-Za-z0-9+/]{200,2000}={0,3}",
    "A3-": r"[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}",
    **dict.fromkeys(("s-s4t2ud-", "s-s4t2af-"), rf"{HEX}{{64}}"),
    **dict.fromkeys(("EAAM", "EAAC"), rf"{WORD}{{100,400}}"),
    "eyJrIjoi": r"[A-Za-z0-9+/]{70,400}={0,2}",
    "ZXlK": r"[\w+/=-]{60,4000}",
    "sq0csp-": r"[\w-]{43}",
    "sq0atp-": r"[\w-]{22}",
    "EAAA": r"[\w-]{60}",
    "EAACEdEose0cBA": rf"{WORD}{{20,250}}",
    "lin_api_": rf"{WORD}{{40}}",
    "secret_": rf"{WORD}{{43}}",
    "ntn_": rf"{WORD}{{46}}",
    "ATATT3": r"[\w=-]{100,250}",
    "figd_": r"[\w-]{40,60}",
    "PMAK-": rf"{HEX}{{24}}-{HEX}{{34}}",
    "glsa_": rf"{WORD}{{32}}_[0-9A-Fa-f]{{8}}",
    "glc_": r"[A-Za-z0-9+/=]{32,400}",
    "NRAK-": r"[A-Z0-9]{27}",
    "sntrys_": r"[\w+/=]{60,400}",
    "sntryu_": rf"{HEX}{{64}}",
    "phc_": rf"{WORD}{{43}}",
    "dt0c01.": r"[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}",
    "sl.": r"[\w-]{130,160}",
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
