import json

from comln.metrics import MetricsLog, keep_until, read_lines


def test_going_on_drops_what_will_be_made_again_and_a_half_written_line(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": 1.0 / step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 2, 3]
    keep_until(tmp_path, 2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_a_folder_without_metrics_has_none(tmp_path):
    assert list(read_lines(tmp_path)) == []
    keep_until(tmp_path, 5)
    assert list(read_lines(tmp_path)) == []
