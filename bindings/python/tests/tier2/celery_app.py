"""Tasks for Celery's prefork pool, with results in two tiers, used by the parent before the fork.
"""

import os
import time

import celery

import hotset
from hotset.tier2 import Redis

url = os.environ["TIER2_URL"]
app = celery.Celery("celery_app", broker=url, backend=url)
app.conf.update(broker_connection_retry_on_startup=True, worker_send_task_events=False, task_acks_late=True)
shop = Redis(url, prefix="app")


@hotset.cached(ttl=300, tier2=shop, name="page")
def page(key):
    with open(os.environ["TIER2_LOADS"], "a") as file:
        file.write(f"{os.getpid()} {key}\n")
    time.sleep(0.2)
    return f"page {key}"


page("early")


@app.task(name="page")
def get_page(key):
    return os.getpid(), page(key)


@app.task(name="invalidate")
def invalidate(key):
    return page.cache_invalidate(key)
