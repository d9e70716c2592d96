"""What an environment will cost a month, read from its synthesised templates before anything is deployed.

No network, no credentials: a cloud assembly (``cdk.out``), the workloads' ``load`` blocks and a dated price
table are all there is. `python -m cost` prints it; `difference` compares two assemblies.

Rooms, the lower ones first: ``assembly`` (stacks and resources), ``pricing`` (the price table), ``load``
(what is sent and asked), ``rules`` (what each type of resource bills), ``forecast`` and ``difference``
(sums), ``advice`` (what would be cheaper), ``teardown`` (what a destroy leaves),
``shown`` (text and page).
"""

from cost.advice import advise
from cost.assembly import AssemblyError, read_stacks
from cost.difference import Difference, difference
from cost.forecast import Forecast, Line, forecast
from cost.load import Load, loads_of
from cost.pricing import PriceTable, load_prices
from cost.teardown import Announcement, announce

__all__ = [
    "Announcement",
    "AssemblyError",
    "Difference",
    "Forecast",
    "Line",
    "Load",
    "PriceTable",
    "advise",
    "announce",
    "difference",
    "forecast",
    "load_prices",
    "loads_of",
    "read_stacks",
]
