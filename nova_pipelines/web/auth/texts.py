"""What the login page says, in the languages of those who read it."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "es"]

TEXTS: dict[Language, dict[str, str]] = {
    "en": {
        "title": "Log in",
        "login": "User",
        "password": "Password",
        "submit": "Log in",
        "openid": "Log in with your organisation's account",
        "or": "or",
        "wrong": "User or password are not right.",
        "locked": "Too many attempts. Try again in {minutes}.",
        "minute": "one minute",
        "minutes": "{count} minutes",
        "out": "You have logged out.",
        "leave": "Log out",
        "leave_title": "Log out?",
        "leave_text": "You are logged in as {name}.",
        "stay": "Back",
        "openid_failed": "The login at your organisation did not succeed: {reason}",
        "nobody": "There is no user yet. Make one on the server: nova users create NAME --role admin",
        "tagline": "From invoice to decision",
    },
    "es": {
        "title": "Iniciar sesión",
        "login": "Usuario",
        "password": "Contraseña",
        "submit": "Entrar",
        "openid": "Entrar con la cuenta de su organización",
        "or": "o",
        "wrong": "El usuario o la contraseña no son correctos.",
        "locked": "Demasiados intentos. Vuelva a intentarlo en {minutes}.",
        "minute": "un minuto",
        "minutes": "{count} minutos",
        "out": "Ha cerrado la sesión.",
        "leave": "Cerrar sesión",
        "leave_title": "¿Cerrar sesión?",
        "leave_text": "Ha iniciado sesión como {name}.",
        "stay": "Volver",
        "openid_failed": "No se pudo entrar con la cuenta de su organización: {reason}",
        "nobody": "Todavía no hay ningún usuario. Créelo en el servidor: nova users create NOMBRE --role admin",
        "tagline": "De la factura a la decisión",
    },
}


def language_of(accept: str) -> Language:
    """The language of an Accept-Language header that is known here (RFC 9110, 12.5.4); English where none is."""
    best: tuple[float, Language] = (0.0, "en")
    for part in accept[:500].split(","):
        name, _, weight = part.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=")) if weight.strip() else 1.0
        except ValueError:
            continue
        language = name.strip().lower().partition("-")[0]
        if quality > best[0] and (language == "en" or language == "es"):
            best = (quality, language)
    return best[1]


def minutes(seconds: int, language: Language) -> str:
    count = max(1, -(-seconds // 60))
    return TEXTS[language]["minute" if count == 1 else "minutes"].format(count=count)
