import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter

from flowers_jax.runs.events import Events


def read(folder):
    """The scalars in the event files of a folder, by epoch and name."""
    found = {}
    for path in folder.glob("events.out.tfevents.*"):
        content = path.read_bytes()
        while content:  # length, its checksum, the event, its checksum
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                found[event.step, value.tag] = value.simple_value
    return found


def test_the_rows_can_be_read_back(tmp_path):
    events = Events(tmp_path, 1)
    for epoch in (1, 2):
        events.add({"epoch": epoch, "loss": 1 / epoch, "val_accuracy": 0.25})
    assert read(tmp_path) == {
        (1, "loss"): 1.0,
        (1, "val_accuracy"): 0.25,
        (2, "loss"): 0.5,
        (2, "val_accuracy"): 0.25,
    }


@pytest.mark.parametrize("works_for", [0, 5])
def test_a_file_that_cannot_grow_is_said_once(tmp_path, monkeypatch, caplog, works_for):
    writes = []

    def write(writer, data):
        writes.append(data)
        if len(writes) > works_for:
            raise OSError(27, "File too large")

    monkeypatch.setattr(RecordWriter, "write", write)
    events = Events(tmp_path, 1)
    for epoch in range(1, 30):
        events.add({"epoch": epoch, "loss": 1.0})
    assert caplog.text.count("no more events for TensorBoard: File too large") == 1
