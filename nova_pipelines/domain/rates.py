"""Prices of sandbox time. Public prices change: they carry their date, and what is made of them is an estimate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

NANO_PER_USD = 10**9


@dataclass(frozen=True, slots=True)
class SandboxRates:
    """US dollars for a second of a sandbox's life, and how big the sandbox is. E2B bills life, used or not."""

    usd_per_vcpu_second: Decimal
    usd_per_gib_second: Decimal
    vcpus: Decimal
    memory_gib: Decimal
    as_of: date

    @property
    def usd_per_second(self) -> Decimal:
        return self.usd_per_vcpu_second * self.vcpus + self.usd_per_gib_second * self.memory_gib

    def nano_usd(self, seconds: float) -> int:
        """The price of so many seconds in 10⁻⁹ US dollars: whole numbers add up exactly."""
        exact = Decimal(str(seconds)) * self.usd_per_second * NANO_PER_USD
        return int(exact.to_integral_value(ROUND_HALF_EVEN))

    def text(self) -> str:
        return (
            f"{self.vcpus} vCPU at ${self.usd_per_vcpu_second:f} and {self.memory_gib} GiB at "
            f"${self.usd_per_gib_second:f} a second"
        )

    def view(self) -> dict[str, Any]:
        """As plain data, decimals as text."""
        return {
            "usd_per_vcpu_second": f"{self.usd_per_vcpu_second:f}",
            "usd_per_gib_second": f"{self.usd_per_gib_second:f}",
            "vcpus": str(self.vcpus),
            "memory_gib": str(self.memory_gib),
            "as_of": self.as_of.isoformat(),
        }
