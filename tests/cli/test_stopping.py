import signal

import pytest

from comln.cli.stopping import SIGNALS, Stopping


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_to_stop_and_the_second_stops_at_once(number, capfd):
    with Stopping() as stopping:
        stopping.gently = True
        signal.raise_signal(number)
        assert stopping.requested and "a second signal stops at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_where_there_is_no_step_to_finish_a_signal_stops_at_once(number):
    with Stopping(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_afterwards_signals_do_what_they_did_before():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Stopping():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
